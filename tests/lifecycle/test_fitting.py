"""What happens to a call that does not fit: counted, sent elsewhere, cut short or refused. What left says so."""

from __future__ import annotations

import pytest

from llm_cost_middleware import Budget, BudgetExceededError
from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import CallRequest, CallResult, Message, Part
from llm_cost_middleware.simulator import Fault
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

BIG = {"text_threshold": 1}
"""Every call belongs to the large tier."""


def _budget(limit):
    return [{"scope": "global", "limit": limit}]


def _cap(request):
    return request.body.get("max_completion_tokens") or request.body.get("max_tokens")


def test_plain_text_is_counted_where_its_bytes_do_not_fit(make_harness):
    """The same model and the same cap: only the bound is better known."""
    harness = make_harness(budgets=_budget("0.005"))
    answer = harness.call("words that are plain " * 200, model="gpt-5-mini", max_tokens=1_000)
    assert answer.records[0].reserved_nanousd <= 5_000_000
    assert _cap(harness.sim.requests[0]) == 1_000
    assert harness.reported("RequestAdjusted", "BudgetRefused") == []
    harness.check()


def test_a_cheaper_model_takes_what_does_not_fit_the_chosen_one(make_harness):
    harness = make_harness(budgets=_budget("0.012"), routing=BIG)
    harness.call(max_tokens=1_500, providers=["openai"])
    (adjusted,) = harness.reported("RequestAdjusted")
    assert (adjusted.action, adjusted.before, adjusted.after) == ("downgrade", "openai/gpt-5.1", "openai/gpt-5-mini")
    (request,) = harness.sim.requests
    assert (request.body["model"], _cap(request)) == ("gpt-5-mini", 1_500)
    assert harness.pipeline.records()[0].model == "gpt-5-mini"
    harness.check()


def test_the_other_provider_takes_it_too(make_harness):
    harness = make_harness(
        budgets=_budget("0.01"), routing=BIG,
        tiers=[
            {"name": "small", "models": ["openai/gpt-5-mini"]},
            {"name": "large", "models": ["anthropic/claude-sonnet-4-6"]},
        ],
    )  # fmt: skip
    harness.call(max_tokens=1_500)
    assert [(request.provider, request.body["model"]) for request in harness.sim.requests] == [("openai", "gpt-5-mini")]
    harness.check()


def test_a_model_of_a_tier_that_has_no_price_is_told_once(make_harness, caplog):
    """It is never called, and all that it was to take goes to the dearer tier."""
    names = {"small": "openai/gpt-5-mni", "large": "openai/gpt-5.1"}
    harness = make_harness(tiers=[{"name": name, "models": [model]} for name, model in names.items()])
    for _ in range(2):
        harness.call(max_tokens=50, providers=["openai"])
    harness.call(max_tokens=50)
    (told,) = [record.message for record in caplog.records if "gpt-5-mni" in record.message]
    assert told.startswith("tier small: no price for openai/gpt-5-mni; the nearest known are gpt-5-mini")
    assert [record.model for record in harness.pipeline.records()] == ["gpt-5.1"] * 3


def test_the_output_cap_is_lowered_to_the_budget_and_a_stop_at_it_is_reported(make_harness):
    harness = make_harness(budgets=_budget("0.02"), output={"on_insufficient": ["cap_output", "raise"]})
    harness.call(model="gpt-5.1")
    (adjusted,) = harness.reported("RequestAdjusted")
    (request,) = harness.sim.requests
    (reserved,) = harness.reported("Reserved")
    assert adjusted.action == "cap_output"
    assert 256 <= _cap(request) == int(adjusted.after) == reserved.max_tokens < int(adjusted.before)
    assert reserved.max_tokens_injected
    (capped,) = harness.reported("OutputCapReached")  # the answer fills its cap
    assert capped.max_tokens == _cap(request)
    assert harness.pipeline.records()[0].max_tokens_injected
    harness.check()


def test_what_does_not_fit_is_downgraded_then_capped_then_refused_in_the_configured_order(make_harness):
    """Neither the large nor the small model fits as it is: the small one, cut short."""
    harness = make_harness(budgets=_budget("0.004"), routing=BIG, output={"default_max_tokens": 8_000})
    harness.call(providers=["openai"])
    (adjusted,) = harness.reported("RequestAdjusted")
    (request,) = harness.sim.requests
    assert (adjusted.action, request.body["model"]) == ("cap_output", "gpt-5-mini")
    assert _cap(request) == int(adjusted.after) < 8_000
    harness.check()


def test_steps_that_are_not_configured_are_not_taken(make_harness):
    harness = make_harness(budgets=_budget("0.012"), routing=BIG, output={"on_insufficient": ["raise"]})
    with pytest.raises(BudgetExceededError) as caught:
        harness.call(max_tokens=1_500, providers=["openai"])
    assert (caught.value.scope, str(caught.value.budget_limit)) == ("global", "0.012000000")
    assert caught.value.requested > caught.value.budget_limit
    assert not harness.sim.requests
    (refused,) = harness.reported("BudgetRefused")
    assert (refused.enforced, refused.scope, refused.model) == (True, "global", "openai/gpt-5.1")
    harness.check()


def test_a_cap_too_small_for_an_answer_is_a_refusal(make_harness):
    harness = make_harness(budgets=_budget("0.0005"))
    with pytest.raises(BudgetExceededError):
        harness.call(providers=["openai"])
    assert not harness.sim.requests
    harness.check()


def test_a_pinned_model_is_never_left(make_harness):
    harness = make_harness(budgets=_budget("0.002"))
    with pytest.raises(BudgetExceededError):
        harness.call(model="gpt-5.1")
    assert not harness.sim.requests
    harness.check()


def test_a_callers_own_cap_may_be_lowered_and_reports_it(make_harness):
    harness = make_harness(budgets=_budget("0.02"))
    harness.ask("openai", model="gpt-5.1", max_completion_tokens=4_000)
    assert harness.reported("RequestAdjusted")[0].before == "4000"
    assert _cap(harness.sim.requests[0]) < 4_000
    assert harness.reported("OutputCapReached")
    harness.check()


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_limit_of_the_call_itself_holds_whatever_the_budget(make_harness, provider):
    harness = make_harness(output={"on_insufficient": ["raise"]})
    said = {"extra_body": {"llm_cost": {"max_cost": "0.00001"}}}
    with pytest.raises(BudgetExceededError) as caught:
        harness.ask(provider, **said)
    assert caught.value.scope == "call"
    assert not harness.sim.requests
    harness.check()


def test_a_limit_of_the_call_itself_cuts_the_answer(make_harness):
    harness = make_harness()
    answer = harness.call(max_cost="0.002", providers=["openai"])
    assert answer.records[0].reserved_nanousd <= 2_000_000
    assert _cap(harness.sim.requests[0]) < 4_096
    harness.check()


def test_a_limit_of_the_call_itself_counts_what_an_earlier_attempt_was_booked_at(make_harness):
    harness = make_harness(output={"on_insufficient": ["raise"]}, routing={"policy": "cascade", "accept": "check"})
    first = harness.call(model="smart", max_tokens=1_000, providers=["openai"]).records[0]
    limit = NanoUSD(first.reserved_nanousd + first.cost_nanousd - 1)
    harness.sim.script(Fault.reset(billed=True))
    with pytest.raises(BudgetExceededError) as caught:
        harness.call(model="smart", max_tokens=1_000, providers=["openai"], max_cost=limit.usd)
    assert caught.value.scope == "call"
    assert caught.value.budget_limit == limit.usd
    assert 0 < caught.value.total_cost == limit.usd - caught.value.available
    assert caught.value.__cause__ is not None
    assert len(harness.sim.requests) == 2
    harness.check()


# --- cache marks of ours ----------------------------------------------------------------------------------------------

KNOWN = [{"type": "text", "text": "alpha beta gamma delta " * 900}]
INPUT, OUTPUT = 1_000, 5_000
"""Nano-dollars a token at Claude Haiku 4.5; a write to its cache costs a quarter more than input."""
RAISE = {"on_insufficient": ["raise"]}


def _ask(harness, user, system=KNOWN, **more):
    return harness.ask("anthropic", system=system, extra_body={"llm_cost": {"user": user}}, **more)


def _seen(make_harness, **config):
    """A pipeline that marks a system prompt because it came back, and the input tokens of a call with it."""
    harness = make_harness(**config)
    for _ in range(4):
        _ask(harness, "many")
    return harness, harness.pipeline.records()[-1].usage.input_tokens


def _give(harness, user, nanousd):
    harness.pipeline.ledger.set_budget(Budget(f"user:{user}", f"{int(nanousd) / 10**9:.9f}"))


def _is_marked(request):
    return "cache_control" in str(request.body)


def _left(harness):
    return [request for request in harness.sim.requests if request.path == "/v1/messages"][-1]


def test_a_mark_of_ours_is_given_up_where_it_alone_makes_a_call_not_fit(make_harness):
    harness, tokens = _seen(make_harness, output=RAISE)
    marks = str(str(_left(harness).body).count("cache_control"))
    _give(harness, "few", 1.1 * (tokens * INPUT + 64 * OUTPUT))
    _ask(harness, "few")
    assert not _is_marked(_left(harness))
    assert harness.pipeline.records()[-1].reserved_nanousd < 1.1 * (tokens * INPUT + 64 * OUTPUT)
    (adjusted,) = harness.reported("RequestAdjusted")
    assert (adjusted.action, adjusted.before, adjusted.after) == ("drop_cache_marks", marks, "0")
    _ask(harness, "many")
    assert _is_marked(_left(harness)), "with money enough it is marked again"
    harness.check()


def test_a_mark_of_ours_is_given_up_before_an_answer_is_cut(make_harness):
    harness, tokens = _seen(make_harness)
    _give(harness, "few", 1.05 * (tokens * INPUT + 400 * OUTPUT))
    _ask(harness, "few", max_tokens=400)
    assert (_cap(_left(harness)), _is_marked(_left(harness))) == (400, False)
    assert [event.action for event in harness.reported("RequestAdjusted")] == ["drop_cache_marks"]
    harness.check()


def test_an_answer_that_must_be_cut_all_the_same_is_cut_less_without_a_mark_of_ours(make_harness):
    harness, tokens = _seen(make_harness)
    _give(harness, "few", 1.05 * (tokens * INPUT + 400 * OUTPUT))
    _ask(harness, "few", max_tokens=4_000)
    assert 400 <= _cap(_left(harness)) < 600
    assert not _is_marked(_left(harness))
    assert [event.action for event in harness.reported("RequestAdjusted")] == ["cap_output", "drop_cache_marks"]
    harness.check()


def test_a_mark_of_ours_is_given_up_sooner_than_a_count_is_asked_for(make_harness):
    harness, _ = _seen(make_harness, output=RAISE)
    marked = harness.pipeline.records()[-1].reserved_nanousd
    bare = (marked - 64 * OUTPUT) * 4 // 5 + 64 * OUTPUT
    asked = len(harness.sim.requests)
    said = {"llm_cost": {"user": "many", "max_cost": f"{(marked + bare) // 2 / 10**9:.9f}"}}
    harness.ask("anthropic", system=KNOWN, extra_body=said)
    assert len(harness.sim.requests) == asked + 1
    assert not _is_marked(_left(harness))
    assert harness.pipeline.records()[-1].reserved_nanousd == pytest.approx(bare, abs=1)
    harness.check()


def test_a_mark_of_the_callers_is_never_given_up(make_harness):
    harness, tokens = _seen(make_harness, output=RAISE)
    _give(harness, "few", 1.1 * (tokens * INPUT + 64 * OUTPUT))
    with pytest.raises(BudgetExceededError):
        _ask(harness, "few", [{**KNOWN[0], "cache_control": {"type": "ephemeral"}}])
    assert not harness.reported("RequestAdjusted")
    harness.check()


def test_a_cheaper_model_is_asked_without_a_mark_of_ours_where_it_fits_so(make_harness):
    tiers = [
        {"name": "small", "models": ["anthropic/claude-haiku-4-5"]},
        {"name": "large", "models": ["anthropic/claude-sonnet-4-6"]},
    ]
    output = {"on_insufficient": ["downgrade", "raise"]}
    harness, tokens = _seen(make_harness, output=output, tiers=tiers, routing=BIG)
    _give(harness, "few", 1.1 * (tokens * INPUT + 64 * OUTPUT))
    _ask(harness, "few", model="smart")
    assert _left(harness).body["model"] == "claude-haiku-4-5"
    assert not _is_marked(_left(harness))
    assert [event.action for event in harness.reported("RequestAdjusted")] == ["downgrade", "drop_cache_marks"]
    harness.check()


# --- races ------------------------------------------------------------------------------------------------------------


def test_money_that_is_gone_between_the_quote_and_the_reservation_is_not_spent_twice(make_harness):
    harness = make_harness(budgets=_budget("0.02"), output={"on_insufficient": ["raise"]})

    class Thief:
        def on_event(self, event):
            if type(event).__name__ == "Routed":
                harness.pipeline._runtimes.ledger.reserve("0.0199", id="thief")

    harness.pipeline._stages.record.observers += (Thief(),)
    with pytest.raises(BudgetExceededError) as caught:
        harness.call(max_tokens=100, model="gpt-5.1")
    assert str(caught.value.pending) == "0.019900000"
    assert not harness.sim.requests
    harness.pipeline._runtimes.ledger.void("thief")
    assert harness.balance.available_nanousd == 20_000_000


def test_money_that_is_gone_between_the_cap_and_the_reservation_is_a_refusal(make_harness, monkeypatch):
    harness = make_harness(budgets=_budget("0.02"))
    ledgers = [type(harness.pipeline._runtimes.ledger)]
    from llm_cost_middleware.budget.ledger import AsyncLedger

    sync_available, async_available = ledgers[0].available, AsyncLedger.available

    def available(self, scopes=()):
        left = sync_available(self, scopes)
        harness.pipeline._runtimes.ledger.reserve("0.0199")
        return left

    async def aavailable(self, scopes=()):
        left = await async_available(self, scopes)
        harness.pipeline._runtimes.ledger.reserve("0.0199")
        return left

    monkeypatch.setattr(ledgers[0], "available", available)
    monkeypatch.setattr(AsyncLedger, "available", aavailable)
    with pytest.raises(BudgetExceededError):
        harness.call(model="gpt-5.1", max_tokens=5_000)
    assert not harness.sim.requests


# --- prices -----------------------------------------------------------------------------------------------------------


def _unpriced(harness):
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

    harness.caller.run(lambda: harness.pipeline.run(request, send), lambda: harness.pipeline.arun(request, asend))
    return sent


def test_a_model_without_a_price_is_refused_before_the_call(make_harness):
    harness = make_harness()
    with pytest.raises(PriceNotFoundError):
        _unpriced(harness)
    assert harness.resolutions == ()
    harness.check()


def test_a_model_without_a_price_is_booked_as_the_most_expensive_of_its_provider_where_that_is_allowed(make_harness):
    harness = make_harness(on_unknown_price="estimate")
    (attempt,) = _unpriced(harness)
    assert attempt.target.model == "gpt-99-next"
    (record,) = harness.pipeline.records()
    assert record.status == "estimated"
    assert record.cost_nanousd == record.reserved_nanousd
    sibling = make_harness(ledger={"url": "memory://"})
    sibling.call("word " * 400, model="gpt-5.1", max_tokens=100)
    # its vocabulary is as unknown as its price, so that its bytes bound it
    assert record.reserved_nanousd > sibling.pipeline.records()[0].reserved_nanousd > 100 * 10_000
    assert harness.balance.pending_nanousd == 0


def test_an_unpriced_request_that_could_be_cached_leaves_nothing_pending(make_harness):
    """The planner knows no prices either; whatever it makes of that, no reservation is lost."""
    harness = make_harness(on_unknown_price="estimate", cache={"mode": "auto"})
    _unpriced(harness)
    assert harness.balance.pending_nanousd == 0
