"""URLs of ledgers on a server: what a driver would misread is refused, without the password."""

from __future__ import annotations

import pytest

from llm_cost_middleware import Ledger
from llm_cost_middleware.errors import ConfigurationError


@pytest.mark.parametrize("scheme", ["postgresql", "redis", "rediss", "redis+cluster", "redis+sentinel"])
@pytest.mark.parametrize("rest", ["user:pa@ssword@host/db", "us@er:password@host:1/0"])
def test_an_at_sign_in_a_password_is_to_be_encoded_and_nothing_of_it_is_shown(scheme, rest):
    with pytest.raises(ConfigurationError, match="%40") as caught:
        Ledger.open(f"{scheme}://{rest}")
    assert "ss" not in str(caught.value).replace("password", "")


@pytest.mark.parametrize("rest", ["user:pa@ss/word@host:1/db", "user:pa@ss/w@rd@host:1/db?connect_timeout=1"])
def test_nor_is_it_where_a_slash_stands_behind_it(rest):
    with pytest.raises(ConfigurationError, match="%2F") as caught:
        Ledger.open(f"postgresql://{rest}")
    assert "ss" not in str(caught.value).replace("password", "")
