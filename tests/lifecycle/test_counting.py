"""Counts by the provider: asked where the byte bound does not fit, as little as possible, and never in the way."""

from __future__ import annotations

import asyncio
import time

import pytest

from llm_cost_middleware import BudgetExceededError, CostConfig, CostPipeline
from llm_cost_middleware.lifecycle.stages.price import PROVIDER_COUNT
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.simulator import CountingRules, Fault

TEXT = "The shipment left the harbour on Tuesday and nobody has heard of it since. " * 60
LONG = [{"role": "user", "content": TEXT}]
RAISE = {"on_insufficient": ["raise"]}
COUNT, ASK = "/v1/messages/count_tokens", "/v1/messages"


def _budget(limit):
    return [{"scope": "global", "limit": limit}]


def _asked(harness, path=COUNT):
    return [request for request in harness.sim.requests if request.path == path]


@pytest.fixture(autouse=True)
def rules(sim):
    """A provider that counts exactly, and often."""
    sim.counting = CountingRules()
    return sim.counting


def test_a_prompt_is_counted_where_its_byte_bound_does_not_fit(make_harness):
    harness = make_harness(budgets=_budget("0.002"), output=RAISE)
    harness.ask("anthropic", messages=LONG)
    assert len(_asked(harness)) == 1
    (reserved,) = harness.reported("Reserved")
    (record,) = harness.pipeline.records()
    assert not reserved.guaranteed, "the provider calls its own count an estimate"
    input_held, billed = reserved.amount_nanousd - 64 * 5_000, record.usage.input_tokens * 1_000
    assert billed <= input_held <= billed * 1.021
    harness.check()


def test_a_hold_by_a_count_names_its_margin(make_harness):
    harness = make_harness(budgets=_budget("0.002"), output=RAISE)
    seen = []
    quote = harness.pipeline._stages.price.quote
    harness.pipeline._stages.price.quote = lambda *a, **k: seen.append(quote(*a, **k)) or seen[-1]
    harness.ask("anthropic", messages=LONG)
    assert seen[-1].bound.notes == (PROVIDER_COUNT,)
    assert "2 %" in PROVIDER_COUNT


def test_nothing_is_counted_where_money_is_ample(make_harness):
    harness = make_harness()
    harness.ask("anthropic", messages=LONG)
    assert not _asked(harness)


def test_nothing_is_counted_where_not_even_the_answer_fits(make_harness):
    harness = make_harness(budgets=_budget("0.0002"), output=RAISE)
    with pytest.raises(BudgetExceededError):
        harness.ask("anthropic", messages=LONG)
    assert not harness.sim.requests


def test_an_observer_asks_for_no_count(make_harness):
    harness = make_harness(mode="observe", budgets=_budget("0.0001"))
    harness.ask("anthropic", messages=LONG)
    assert not _asked(harness)


def test_a_prompt_is_counted_once_and_its_continuation_by_what_was_added(make_harness):
    harness = make_harness(budgets=_budget("0.006"), output=RAISE)
    harness.ask("anthropic", messages=LONG)
    harness.ask("anthropic", messages=LONG)
    more = [*LONG, {"role": "assistant", "content": "I see."}, {"role": "user", "content": "And now?"}]
    harness.ask("anthropic", messages=more)
    assert len(_asked(harness)) == 1
    assert len(_asked(harness, ASK)) == 3
    harness.check()


@pytest.mark.parametrize(
    ("fault", "asks"),
    [(Fault.status(500), 2), (Fault.status(404), 1), (Fault.status(429), 2), (Fault.reset(), 2)],
)
def test_a_count_that_fails_leaves_the_byte_bound_and_a_gateway_without_it_is_not_asked_again(
    make_harness, fault, asks
):
    harness = make_harness(budgets=_budget("0.002"), output=RAISE)
    harness.sim.script(fault, times=9, match=lambda request: request.path == COUNT)
    for _ in range(2):
        with pytest.raises(BudgetExceededError):
            harness.ask("anthropic", messages=LONG)
    assert len(_asked(harness)) == asks
    assert not _asked(harness, ASK)
    harness.check()


def test_a_key_whose_counts_keep_failing_is_left_alone_for_a_while(make_harness):
    harness = make_harness(budgets=_budget("0.002"), output=RAISE)
    harness.sim.script(Fault.status(500), times=50, match=lambda request: request.path == COUNT)

    def refused():
        with pytest.raises(BudgetExceededError):
            harness.ask("anthropic", messages=LONG)

    for _ in range(6):
        refused()
    assert len(_asked(harness)) == 3
    harness.clock.advance(31)
    refused()
    refused()
    assert len(_asked(harness)) == 4, "one tries, and the key is left alone again"


def test_a_count_that_hangs_is_given_up_after_a_second(make_harness):
    harness = make_harness(budgets=_budget("0.002"), output=RAISE)
    harness.sim.script(Fault.hang(), match=lambda request: request.path == COUNT)
    began = time.monotonic()
    with pytest.raises(BudgetExceededError):
        harness.ask("anthropic", messages=LONG)
    assert 0.9 < time.monotonic() - began < 10, "the simulator would be silent for an hour"


def test_at_most_five_counts_a_second_are_asked_for_a_key(make_harness):
    harness = make_harness(budgets=_budget("0.002"), output=RAISE)
    for number in range(8):
        try:
            harness.ask("anthropic", messages=[{"role": "user", "content": f"{number} {TEXT}"}])
        except BudgetExceededError:
            continue
    passed = harness.clock.monotonic()
    assert len(_asked(harness)) <= 5 + 5 * passed


def test_equal_prompts_at_once_are_counted_once(sim, async_caller):
    """On the machine's own clock: the others wait for the answer that the first has asked for."""
    with CostPipeline(CostConfig(budgets=_budget("0.02"), output=RAISE)) as pipeline:

        async def all_at_once():
            client = async_caller.client("anthropic", pipeline)
            body = {"model": "claude-haiku-4-5-20251001", "max_tokens": 64, "messages": LONG}
            await asyncio.gather(*(client.messages.create(**body) for _ in range(6)))

        async_caller.run(None, all_at_once)
        assert [request.path for request in sim.requests].count(COUNT) == 1
        assert pipeline.ledger.balance("global").settled_nanousd == sim.bill.total_nanousd


def test_a_count_that_was_too_low_raises_the_later_ones(make_harness):
    """The margin is two per cent; a provider that is off by more is believed less from then on."""
    harness = make_harness(budgets=_budget("0.02"), output=RAISE)
    harness.sim.counting = CountingRules(permille=lambda _: 900)
    for number in range(3):
        harness.ask("anthropic", messages=[{"role": "user", "content": f"{number} {TEXT * 2}"}])
    held = [reserved.amount_nanousd for reserved in harness.reported("Reserved")]
    booked = [record.cost_nanousd for record in harness.pipeline.records()]
    assert held[0] < booked[0]
    assert all(hold >= cost for hold, cost in zip(held[1:], booked[1:], strict=True))


def test_an_openai_prompt_is_counted_by_its_vocabulary_and_a_long_one_only_where_money_is_short(make_harness):
    harness = make_harness(budgets=_budget("0.01"), output=RAISE)
    long = TEXT * 8
    harness.ask("openai", messages=[{"role": "user", "content": long}])
    (reserved,) = harness.reported("Reserved")
    (record,) = harness.pipeline.records()
    assert record.cost_nanousd <= reserved.amount_nanousd <= record.cost_nanousd * 1.05
    harness.check()


def test_tools_and_the_beginning_of_a_conversation_are_counted_once(make_harness, monkeypatch):
    from llm_cost_middleware.pricing.vocabulary import Vocabulary

    counted = []
    count = Vocabulary.count
    monkeypatch.setattr(Vocabulary, "count", lambda which, text: counted.append(len(text)) or count(which, text))
    harness = make_harness()
    turns = [{"role": "user", "content": TEXT}]
    harness.ask("openai", messages=turns)
    turns += [{"role": "assistant", "content": "I see."}, {"role": "user", "content": "And now?"}]
    harness.ask("openai", messages=turns)
    assert counted.count(len(TEXT)) == 1


def test_what_bills_rarely_show_is_held_only_where_it_makes_a_guarantee_and_money_is_ample(make_harness):
    """Up to six hundred hidden tokens may come with a tool. Where no tier is declared nothing is guaranteed anyway."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    declared = {"providers": {"openai": {"service_tier": "default"}}}
    holds = []
    for config in (
        declared,
        {},
        {**declared, "budgets": _budget("0.00028"), "output": RAISE},
    ):
        harness = make_harness(**config, ledger={"url": "memory://"})
        harness.ask("openai", tools=[tool])
        holds.append(harness.reported("Reserved")[0])
    wide, close, short = holds
    assert [held.guaranteed for held in holds] == [True, False, False]
    assert close.amount_nanousd == short.amount_nanousd < wide.amount_nanousd - 500 * 250


def test_a_close_count_is_never_above_the_one_that_allows_for_everything(make_harness):
    """However far bills went beyond close counts before."""
    harness = make_harness()
    harness.ask("openai")
    price, target = harness.pipeline._stages.price, ModelRef("openai", "gpt-5-mini")
    (first,) = harness.reported("Reserved")
    price._checks.check(target, 10, 10_000, close=True)
    harness.ask("openai")
    wide = make_harness(providers={"openai": {"service_tier": "default"}}, ledger={"url": "memory://"})
    wide.ask("openai")
    assert first.amount_nanousd < harness.reported("Reserved")[1].amount_nanousd
    assert harness.reported("Reserved")[1].amount_nanousd == wide.reported("Reserved")[0].amount_nanousd


@pytest.mark.parametrize(
    ("declared", "sent", "asked", "held"),
    [
        ({}, None, None, "standard"),
        ({"service_tier": "default"}, None, None, "standard"),
        ({"service_tier": "auto"}, None, None, "priority"),
        ({"service_tier": "priority"}, None, None, "priority"),
        ({"service_tier": "priority"}, None, "default", "standard"),
        ({"service_tier": "default", "send_service_tier": True}, "default", None, "standard"),
        ({"service_tier": "default", "send_service_tier": True}, "priority", "priority", "priority"),
    ],
)
def test_a_call_is_held_at_the_declared_tier_and_the_callers_own_wins(make_harness, declared, sent, asked, held):
    harness = make_harness(providers={"openai": declared})
    more = {} if asked is None else {"service_tier": asked}
    harness.ask("openai", **more)
    assert harness.sim.requests[-1].body.get("service_tier") == (sent or asked)
    (reserved,) = harness.reported("Reserved")
    output = 64 * (3_600 if held == "priority" else 2_000)
    assert output < reserved.amount_nanousd < output + 200 * 500
    assert reserved.guaranteed == bool(declared or asked)


@pytest.mark.parametrize("model", ["gpt-5-mini", "gpt-4o", "gpt-5.1"])
def test_what_an_undeclared_tier_may_cost_at_most_is_told_in_the_quote(make_harness, model):
    """What is in flight before the first answer may pass a limit by that ratio, and by no more; with "auto", never."""
    quotes = {}
    for tier in ("", "auto", "priority"):
        harness = make_harness(providers={"openai": {"service_tier": tier}}, ledger={"url": "memory://"})
        request = get_provider("openai").read_request(harness.body("openai", model=model), "chat.completions")
        flow, pinned = harness.pipeline._flow, request._replace(model_pinned=True)
        call = flow.route(pinned, frozenset({"openai"}))
        quotes[tier] = flow.stages.price.quote(call, ModelRef("openai", model), {})
    (note,) = [note for note in quotes[""].bound.notes if "declares no other" in note]
    told = float(note.partition("up to ")[2].partition(" times")[0])
    assert 1 < quotes["priority"].amount_nanousd / quotes[""].amount_nanousd <= told + 0.005
    assert quotes["auto"].amount_nanousd >= quotes["priority"].amount_nanousd
    assert quotes["auto"].bound.guaranteed


def test_an_answer_at_a_dearer_tier_raises_what_later_calls_hold(make_harness, caplog):
    """A project may be set to serve at another tier than is held: its first answer shows it."""
    from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

    harness = make_harness()
    harness.ask("openai")
    price = harness.pipeline._stages.price
    first = harness.reported("Reserved")[0]
    told = UsageReport(
        items=(BilledItem(TokenUsage(uncached_input=5, output=5)),), model="gpt-5-mini", service_tier="priority",
        complete=True,
    )  # fmt: skip
    for kept in (True, False):
        harness.ask("openai")
        if kept:
            price._note_tier(*_target_and_quote(price, harness), told.service_tier, 1_800_000_000.0)
    assert "service tier 'priority'" in caplog.text
    assert harness.reported("Reserved")[-1].amount_nanousd > first.amount_nanousd * 1.5


def _target_and_quote(price, harness):
    from llm_cost_middleware.providers import get_provider
    from llm_cost_middleware.request import ModelRef

    request = get_provider("openai").read_request(harness.body("openai"), "chat.completions")
    call = harness.pipeline._flow.route(request._replace(model_pinned=True), frozenset({"openai"}))
    target = ModelRef("openai", "gpt-5-mini")
    return target, price.quote(call, target, {})


def test_sending_a_tier_needs_one():
    from llm_cost_middleware import ConfigurationError

    with pytest.raises(ConfigurationError, match="service_tier"):
        CostConfig(providers={"openai": {"send_service_tier": True}})


def test_calibrated_estimates_are_kept_by_call_site_and_their_coverage_is_reported(make_harness):
    harness = make_harness(output={"estimate": "calibrated", **RAISE})
    for number in range(30):
        text = f"{number} " + TEXT[: 900 + 37 * number]
        harness.ask("anthropic", messages=[{"role": "user", "content": text}])
    coverage = harness.pipeline.coverage
    assert coverage.estimates == 10
    assert coverage.share == 1.0
    last = harness.reported("Reserved")[-1]
    assert not last.guaranteed
