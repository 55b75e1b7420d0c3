"""What happens to a call that does not fit: counted, sent elsewhere, cut short or refused. What left says so."""

from __future__ import annotations

import pytest

from llm_cost_middleware import BudgetExceededError
from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.request import CallRequest, CallResult, Message, Part
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

BIG = {"text_threshold": 1}
"""Every call belongs to the large tier."""


def _budget(limit):
    return [{"scope": "global", "limit": limit}]


def _cap(request):
    return request.body.get("max_completion_tokens") or request.body.get("max_tokens")


def test_plain_text_is_counted_where_its_bytes_do_not_fit(houses):
    """The same model and the same cap: only the bound is better known."""
    house = houses(budgets=_budget("0.005"))
    answer = house.call("words that are plain " * 200, model="gpt-5-mini", max_tokens=1_000)
    assert answer.records[0].reserved_nanousd <= 5_000_000
    assert _cap(house.sim.requests[0]) == 1_000
    assert house.told("RequestAdjusted", "BudgetRefused") == []
    house.check()


def test_a_cheaper_model_takes_what_does_not_fit_the_chosen_one(houses):
    house = houses(budgets=_budget("0.02"), routing=BIG)
    house.call(max_tokens=1_500, providers=["openai"])
    (adjusted,) = house.told("RequestAdjusted")
    assert (adjusted.action, adjusted.before, adjusted.after) == ("downgrade", "openai/gpt-5.1", "openai/gpt-5-mini")
    (request,) = house.sim.requests
    assert (request.body["model"], _cap(request)) == ("gpt-5-mini", 1_500)
    assert house.pipeline.records()[0].model == "gpt-5-mini"
    house.check()


def test_the_other_provider_takes_it_too(houses):
    house = houses(
        budgets=_budget("0.01"), routing=BIG,
        tiers=[
            {"name": "small", "models": ["openai/gpt-5-mini"]},
            {"name": "large", "models": ["anthropic/claude-sonnet-4-6"]},
        ],
    )  # fmt: skip
    house.call(max_tokens=1_500)
    assert [(request.provider, request.body["model"]) for request in house.sim.requests] == [("openai", "gpt-5-mini")]
    house.check()


def test_the_output_is_cut_to_what_the_budget_affords_and_the_stop_is_told(houses):
    house = houses(budgets=_budget("0.02"), output={"on_insufficient": ["cap_output", "raise"]})
    house.call(model="gpt-5.1")
    (adjusted,) = house.told("RequestAdjusted")
    (request,) = house.sim.requests
    (reserved,) = house.told("Reserved")
    assert adjusted.action == "cap_output"
    assert 256 <= _cap(request) == int(adjusted.after) == reserved.max_tokens < int(adjusted.before)
    assert reserved.max_tokens_injected
    (capped,) = house.told("OutputCapReached")  # the answer fills its cap
    assert capped.max_tokens == _cap(request)
    assert house.pipeline.records()[0].max_tokens_injected
    house.check()


def test_the_ladder_is_climbed_down_in_its_order(houses):
    """Neither the large nor the small model fits as it is: the small one, cut short."""
    house = houses(budgets=_budget("0.004"), routing=BIG, output={"default_max_tokens": 8_000})
    house.call(providers=["openai"])
    (adjusted,) = house.told("RequestAdjusted")
    (request,) = house.sim.requests
    assert (adjusted.action, request.body["model"]) == ("cap_output", "gpt-5-mini")
    assert _cap(request) == int(adjusted.after) < 8_000
    house.check()


def test_what_is_not_allowed_is_not_done(houses):
    house = houses(budgets=_budget("0.02"), routing=BIG, output={"on_insufficient": ["raise"]})
    with pytest.raises(BudgetExceededError) as caught:
        house.call(max_tokens=1_500, providers=["openai"])
    assert (caught.value.scope, str(caught.value.budget_limit)) == ("global", "0.020000000")
    assert caught.value.requested > caught.value.budget_limit
    assert not house.sim.requests
    (refused,) = house.told("BudgetRefused")
    assert (refused.enforced, refused.scope, refused.model) == (True, "global", "openai/gpt-5.1")
    house.check()


def test_a_cap_too_small_to_say_anything_is_a_refusal(houses):
    house = houses(budgets=_budget("0.0005"))
    with pytest.raises(BudgetExceededError):
        house.call(providers=["openai"])
    assert not house.sim.requests
    house.check()


def test_a_pinned_model_is_never_left(houses):
    house = houses(budgets=_budget("0.003"))
    with pytest.raises(BudgetExceededError):
        house.call(model="gpt-5.1")
    assert not house.sim.requests
    house.check()


def test_a_callers_own_cap_may_be_lowered_and_says_so(houses):
    house = houses(budgets=_budget("0.02"))
    house.ask("openai", model="gpt-5.1", max_completion_tokens=4_000)
    assert house.told("RequestAdjusted")[0].before == "4000"
    assert _cap(house.sim.requests[0]) < 4_000
    assert house.told("OutputCapReached")
    house.check()


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_limit_of_the_call_itself_holds_whatever_the_budget(houses, provider):
    house = houses(output={"on_insufficient": ["raise"]})
    said = {"extra_body": {"llm_cost": {"max_cost": "0.00001"}}}
    with pytest.raises(BudgetExceededError) as caught:
        house.ask(provider, **said)
    assert caught.value.scope == "call"
    assert not house.sim.requests
    house.check()


def test_a_limit_of_the_call_itself_cuts_the_answer(houses):
    house = houses()
    answer = house.call(max_cost="0.002", providers=["openai"])
    assert answer.records[0].reserved_nanousd <= 2_000_000
    assert _cap(house.sim.requests[0]) < 4_096
    house.check()


# --- races ------------------------------------------------------------------------------------------------------------


def test_money_that_is_gone_between_the_quote_and_the_reservation_is_not_spent_twice(houses):
    house = houses(budgets=_budget("0.02"), output={"on_insufficient": ["raise"]})

    class Thief:
        def on_event(self, event):
            if type(event).__name__ == "Routed":
                house.pipeline._runtimes.ledger.reserve("0.0199", id="thief")

    house.pipeline._stages.record.observers += (Thief(),)
    with pytest.raises(BudgetExceededError) as caught:
        house.call(max_tokens=100, model="gpt-5.1")
    assert str(caught.value.pending) == "0.019900000"
    assert not house.sim.requests
    house.pipeline._runtimes.ledger.void("thief")
    assert house.balance.available_nanousd == 20_000_000


def test_money_that_is_gone_between_the_cap_and_the_reservation_is_a_refusal(houses, monkeypatch):
    house = houses(budgets=_budget("0.02"))
    ledgers = [type(house.pipeline._runtimes.ledger)]
    from llm_cost_middleware.budget.ledger import AsyncLedger

    sync_available, async_available = ledgers[0].available, AsyncLedger.available

    def available(self, scopes=()):
        left = sync_available(self, scopes)
        house.pipeline._runtimes.ledger.reserve("0.0199")
        return left

    async def aavailable(self, scopes=()):
        left = await async_available(self, scopes)
        house.pipeline._runtimes.ledger.reserve("0.0199")
        return left

    monkeypatch.setattr(ledgers[0], "available", available)
    monkeypatch.setattr(AsyncLedger, "available", aavailable)
    with pytest.raises(BudgetExceededError):
        house.call(model="gpt-5.1", max_tokens=5_000)
    assert not house.sim.requests


# --- prices -----------------------------------------------------------------------------------------------------------


def _unpriced(house):
    """A call of a model that nobody knows a price for, which its provider answers all the same."""
    request = CallRequest(
        "openai", "gpt-99-next", (Message("user", (Part("text", "word " * 400),)),), endpoint="chat.completions",
        max_tokens=100, model_pinned=True,
    )  # fmt: skip
    sent = []

    def send(attempt):
        sent.append(attempt)
        reading = UsageReport(
            items=(BilledItem(TokenUsage(uncached_input=10, output=5)),), model="gpt-99-next", complete=True
        )
        return CallResult("an answer", reading)

    async def asend(attempt):
        return send(attempt)

    house.face.run(lambda: house.pipeline.run(request, send), lambda: house.pipeline.arun(request, asend))
    return sent


def test_a_model_without_a_price_is_refused_before_the_call(houses):
    house = houses()
    with pytest.raises(PriceNotFoundError):
        _unpriced(house)
    assert house.resolutions == ()
    house.check()


def test_a_model_without_a_price_is_booked_as_the_dearest_of_its_provider_where_that_is_allowed(houses):
    house = houses(on_unknown_price="estimate")
    (attempt,) = _unpriced(house)
    assert attempt.target.model == "gpt-99-next"
    (record,) = house.pipeline.records()
    assert record.status == "estimated"
    assert record.cost_nanousd == record.reserved_nanousd
    sibling = houses(ledger={"url": "memory://"})
    sibling.call("word " * 400, model="gpt-5.1", max_tokens=100)
    assert record.reserved_nanousd == sibling.pipeline.records()[0].reserved_nanousd
    assert house.balance.pending_nanousd == 0


def test_an_unpriced_request_that_could_be_cached_leaves_nothing_pending(houses):
    """The planner knows no prices either; whatever it makes of that, no reservation is lost."""
    house = houses(on_unknown_price="estimate", cache={"mode": "auto"})
    _unpriced(house)
    assert house.balance.pending_nanousd == 0
