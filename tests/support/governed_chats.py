"""What holds for every guarded chat model of LangChain: the ledger is the bill, and a race sends what fits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.integrations.langchain import guard
from llm_cost_middleware.simulator import fill

PROMPT = "Tell me everything about the bridges of Prague."


def agree(harness, sim, calls):
    """So many calls were answered, and cost in the ledger what the simulator bills."""
    balance = harness.pipeline.ledger.balance("global")
    assert balance.pending_nanousd == 0
    assert balance.settled_nanousd == sim.bill.total_nanousd > 0
    assert [record.status for record in harness.pipeline.records()] == ["exact"] * calls


def race(make_harness, sim, model, platform):
    """Twelve threads ask where there is money for five, in the budget of the platform: five are sent."""
    sim.responder, sim.latency_s = fill, 0.05
    quoted = make_harness()
    guard(model(), quoted.pipeline).invoke(PROMPT)
    hold = quoted.pipeline.records()[-1].reserved_nanousd
    sim.reset()
    limit = str(hold * 5 / 10**9)
    harness = make_harness(
        budgets=[{"scope": f"provider:{platform}", "limit": limit}, {"scope": "global", "limit": "9"}],
        output={"on_insufficient": ["raise"]},
    )
    governed = guard(model(), harness.pipeline)

    def ask(_):
        with suppress(BudgetExceededError):
            governed.invoke(PROMPT)

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(ask, range(12)))
    agree(harness, sim, 5)
    assert len(sim.bill.lines) == 5
