"""An error of an alert says of which."""

from __future__ import annotations

import pytest

from llm_cost_middleware import ConfigurationError, CostConfig


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"when": "tresh"}, "alerts[1].when: 'tresh'"),
        ({"when": "threshold", "to": []}, "alerts[1].to: needs somebody"),
        ({"when": "rate", "times": 1}, "alerts[1].times: must be above 1"),
        ({"when": "threshold", "scope": "x"}, "alerts[1].scope: 'x'"),
    ],
)
def test_of_several(wrong, told):
    with pytest.raises(ConfigurationError) as caught:
        CostConfig(alerts=[{"when": "threshold"}, wrong])
    assert str(caught.value).startswith(told), str(caught.value)
