"""pytest fixture of the provider simulator, for the tests of an application.

In the ``conftest.py`` at the root of the tests::

    pytest_plugins = ["llm_cost_middleware.testing.fixtures"]

In a test::

    def test_the_agent_stays_within_its_budget(llm_provider_simulator):
        client = openai.OpenAI(base_url=llm_provider_simulator.openai_url, api_key="any")
        run_my_agent(client)
        assert llm_provider_simulator.bill.total_nanousd < 5_000_000

``simulator`` describes responders, scripted faults and the clock.
"""

from __future__ import annotations

from collections.abc import Iterator

from llm_cost_middleware.extras import needed_for
from llm_cost_middleware.simulator import Simulator

with needed_for("the fixture llm_provider_simulator"):
    import pytest


@pytest.fixture
def llm_provider_simulator() -> Iterator[Simulator]:
    """Loopback Anthropic and OpenAI provider on a free port, with an empty bill and empty caches."""
    # One per test, not per session: a shared prompt cache would make the cost of a test depend on the tests before it.
    with Simulator() as simulator:
        yield simulator
