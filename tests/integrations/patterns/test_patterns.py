"""The classic functions, through real clients against the loopback provider."""

import logging
from decimal import Decimal

import anthropic
import openai
import pytest

from llm_cost_middleware import (
    BudgetExceededError,
    ConfigurationError,
    CostConfig,
    CostPipeline,
    CostRecord,
    CostTracker,
    RoutingPolicy,
    acall_with_retry,
    aprocess,
    aprocess_many,
    build_cached_messages,
    call_with_retry,
    process,
    process_many,
    select_model,
)
from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.simulator import Answer, Fault, fill
from llm_cost_middleware.testing import FakeClock

PROVIDERS = ["anthropic", "openai"]
HAIKU, SONNET = "claude-haiku-4-5-20251001", "claude-sonnet-4-6"


# --- select_model


@pytest.mark.parametrize(
    ("text", "items", "model"),
    [(0, 1, HAIKU), (9_999, 29, HAIKU), (10_000, 1, SONNET), (0, 30, SONNET), (10_000, 30, SONNET)],
)
def test_small_texts_and_batches_go_to_the_small_model(text, items, model):
    assert select_model(text, items) == model


def test_a_forced_model_wins_and_is_not_validated():
    assert select_model(0, 1, "my-own-model") == "my-own-model"


def test_thresholds_and_models_come_from_the_policy():
    assert select_model(10, 1, policy=RoutingPolicy(text_threshold=5)) == SONNET
    config = CostConfig(tiers=[{"name": "one", "models": ["openai/gpt-5-nano"]}])
    assert select_model(10**6, 1, policy=config) == "gpt-5-nano"


# --- call_with_retry


def _ask(clients, provider, max_retries=0):
    if provider == "anthropic":
        client = clients[provider].with_options(max_retries=max_retries)
        return lambda: client.messages.create(
            model=HAIKU, max_tokens=16, messages=[{"role": "user", "content": "hello"}]
        )
    client = clients[provider].with_options(max_retries=max_retries)
    return lambda: client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": "hello"}])


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("code", [429, 500, 503])
def test_passing_failures_are_retried_with_powers_of_two_between(sim, clients, provider, code):
    sim.script(Fault.status(code), times=2)
    clock = FakeClock()
    call_with_retry(_ask(clients, provider), clock=clock)
    assert [request.status for request in sim.requests] == [code, code, 200]
    assert clock.slept == [1, 2]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("code", [400, 401, 403, 404])
def test_permanent_failures_are_raised_at_once(sim, clients, provider, code):
    sim.script(Fault.status(code), times=3)
    clock = FakeClock()
    with pytest.raises((anthropic.APIStatusError, openai.APIStatusError)) as caught:
        call_with_retry(_ask(clients, provider), clock=clock)
    assert caught.value.status_code == code
    assert (len(sim.requests), clock.slept) == (1, [])


@pytest.mark.parametrize("provider", PROVIDERS)
def test_connection_errors_are_retried_and_the_last_one_is_raised(sim, clients, provider):
    sim.script(Fault.reset(), times=5)
    clock = FakeClock()
    with pytest.raises((anthropic.APIConnectionError, openai.APIConnectionError)):
        call_with_retry(_ask(clients, provider), max_retries=3, clock=clock)
    assert (len(sim.requests), clock.slept) == (3, [1, 2])


async def test_the_async_form_does_the_same(sim, async_clients):
    sim.script(Fault.status(529, provider="anthropic"), times=2)
    clock = FakeClock()
    client = async_clients["anthropic"].with_options(max_retries=0)
    await acall_with_retry(
        lambda: client.messages.create(model=HAIKU, max_tokens=16, messages=[{"role": "user", "content": "hello"}]),
        clock=clock,
    )
    assert (len(sim.requests), clock.slept) == (3, [1, 2])


# --- build_cached_messages


def test_the_system_prompt_carries_the_mark_and_the_input_does_not():
    (message,) = build_cached_messages("be brief", "hello")
    assert message["role"] == "user"
    assert message["content"] == [
        {"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "hello"},
    ]


def test_a_known_model_gets_a_mark_only_where_it_can_help():
    short = build_cached_messages("be brief", "hello", model=HAIKU)[0]["content"][0]
    long = build_cached_messages("word " * 5_000, "hello", model=HAIKU)[0]["content"][0]
    assert "cache_control" not in short
    assert long["cache_control"] == {"type": "ephemeral"}
    assert build_cached_messages("be brief", "hello", model="gpt-5-mini") == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
    ]


def test_the_marked_messages_are_accepted_and_cached(sim, clients):
    messages = build_cached_messages("word " * 5_000, "hello")
    for _ in range(2):
        answer = clients["anthropic"].messages.create(model=HAIKU, max_tokens=16, messages=messages)
    assert answer.usage.cache_read_input_tokens > 4_096


# --- process


@pytest.mark.parametrize("provider", PROVIDERS)
def test_process_answers_and_books_to_the_nano_dollar(sim, clients, provider):
    pipeline = CostPipeline(CostConfig())
    before = CostTracker("1.00")
    result, after = process("hello there", pipeline, before, client=clients[provider], system_prompt="be brief")
    assert result.value == result.text
    assert result.text
    assert result.decision.target.provider == provider
    assert result.decision.tier_name == "small"
    assert (len(before), len(after)) == (0, 1)
    assert result.record.status == "exact"
    assert result.record.cost_nanousd == sim.bill.total_nanousd > 0
    assert pipeline.ledger.balance("global").settled_nanousd == sim.bill.total_nanousd
    assert pipeline.ledger.balance("global").pending_nanousd == 0


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_aprocess_does_the_same(sim, async_clients, provider):
    result, after = await aprocess("hello there", CostConfig(), CostTracker(), client=async_clients[provider])
    assert after.total_cost == result.record.cost_usd
    assert result.record.cost_nanousd == sim.bill.total_nanousd


def test_long_texts_and_batches_go_up_a_tier_and_a_forced_model_wins(clients):
    pipeline = CostPipeline(CostConfig())

    def tier(text, **options):
        result, _ = process(text, pipeline, CostTracker(None), client=clients["anthropic"], **options)
        return result.record.model

    assert tier("x" * 9_000) == HAIKU
    assert tier("x" * 10_000) == SONNET
    assert tier("x", item_count=30) == SONNET
    from llm_cost_middleware import cost_context

    with cost_context(force_model="claude-opus-4-6"):
        assert tier("x") == "claude-opus-4-6"


def test_the_tracker_is_checked_before_the_call(sim, clients):
    spent = CostTracker("0.01", [CostRecord("m", 1, 1, "0.02")])
    with pytest.raises(BudgetExceededError) as caught:
        process("hello", CostConfig(), spent, client=clients["anthropic"])
    assert (caught.value.total_cost, caught.value.budget_limit) == (Decimal("0.02"), Decimal("0.01"))
    assert not sim.requests


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_budget_smaller_than_one_call_refuses_it_and_loses_nothing(sim, clients, provider):
    pipeline = CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": "0.000001"}]))
    tracker = CostTracker()
    with pytest.raises(BudgetExceededError) as caught:
        process("hello", pipeline, tracker, client=clients[provider])
    assert caught.value.scope == "global"
    assert caught.value.requested > 0
    assert not sim.requests
    balance = pipeline.ledger.balance("global")
    assert (balance.settled, balance.pending, len(tracker)) == (0, 0, 0)


def test_failed_attempts_are_retried_and_the_hidden_retries_of_the_sdk_are_off(sim, clients):
    clock = FakeClock()
    sim.script(Fault.status(529, provider="anthropic"), times=1)
    result, tracker = process(
        "hello", CostPipeline(CostConfig(), clock=clock), CostTracker(), client=clients["anthropic"]
    )
    assert [request.status for request in sim.requests] == [529, 200]
    assert len(clock.slept) == 1
    assert result.record.attempt == 2
    assert len(tracker) == 1


def test_authentication_is_never_retried(sim):
    with anthropic.Anthropic(base_url=sim.anthropic_url, api_key="wrong") as client:
        sim.script(Fault.status(401), times=5)
        pipeline = CostPipeline(CostConfig())
        with pytest.raises(anthropic.AuthenticationError):
            process("hello", pipeline, CostTracker(), client=client)
    assert len(sim.requests) == 1
    assert pipeline.ledger.balance("global").pending == 0


def test_a_response_without_usage_is_booked_at_its_reservation_and_reports_it(sim, clients):
    sim.script(Fault.no_usage())
    pipeline = CostPipeline(CostConfig())
    result, tracker = process("hello", pipeline, CostTracker(None), client=clients["openai"])
    assert result.text
    assert result.record.status == "estimated"
    assert result.record.cost_nanousd == result.record.reserved_nanousd >= sim.bill.total_nanousd
    assert len(tracker) == 1


def test_a_parse_that_fails_loses_no_money(sim, clients):
    pipeline = CostPipeline(CostConfig())
    with pytest.raises(ZeroDivisionError):
        process("hello", pipeline, CostTracker(), client=clients["openai"], parse_result=lambda _: 1 / 0)
    assert pipeline.ledger.balance("global").settled_nanousd == sim.bill.total_nanousd


def test_an_unknown_model_is_an_error_before_the_call(sim, clients):
    config = CostConfig(tiers=[{"name": "only", "models": ["anthropic/claude-haiku-9"]}])
    from llm_cost_middleware import NoEligibleModelError

    with pytest.raises(NoEligibleModelError, match="claude-haiku-9"):
        process("hello", config, CostTracker(), client=clients["anthropic"])
    from llm_cost_middleware import cost_context

    with cost_context(force_model="claude-haiku-9-9"), pytest.raises(PriceNotFoundError) as caught:
        process("hello", CostConfig(), CostTracker(), client=clients["anthropic"])
    assert any("haiku" in name for name in caught.value.nearest)
    assert not sim.requests


def test_a_client_of_neither_provider_is_refused():
    with pytest.raises(ConfigurationError, match="anthropic or openai"):
        process("hello", CostConfig(), CostTracker(), client=object())


def test_every_selection_is_logged(clients, caplog):
    caplog.set_level(logging.INFO, logger="llm_cost_middleware")
    process("hello", CostPipeline(CostConfig()), CostTracker(), client=clients["anthropic"])
    lines = [record.message for record in caplog.records if record.message.startswith("routed")]
    assert len(lines) == 1
    assert HAIKU in lines[0]
    assert "hello" not in "".join(record.message for record in caplog.records)


def test_a_long_system_prompt_is_read_from_the_cache_again(sim, clients):
    pipeline = CostPipeline(CostConfig(cache={"mode": "system"}))
    system, tracker = "a rule that never changes. " * 1_500, CostTracker(None)
    for question in ("one", "two", "three"):
        result, tracker = process(question, pipeline, tracker, client=clients["anthropic"], system_prompt=system)
    assert result.record.usage.cache_read > 4_096
    assert tracker.total_cost == Decimal(sim.bill.total_nanousd).scaleb(-9)


# --- process_many


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_batch_is_answered_in_order_and_booked(sim, clients, provider):
    items = [f"question {number}" for number in range(5)]
    batch = process_many(items, CostConfig(), CostTracker("5"), client=clients[provider])
    assert [index for index, _ in batch.done] == list(range(5))
    assert (batch.remaining, batch.failed, batch.exhausted) == ((), (), None)
    assert batch.quote.calls == 5
    assert batch.quote.bound > batch.quote.expected > 0
    assert batch.tracker.total_cost == Decimal(sim.bill.total_nanousd).scaleb(-9)


def test_a_batch_that_cannot_fit_is_refused_before_its_first_call(sim, clients):
    with pytest.raises(BudgetExceededError) as caught:
        process_many(["hello"] * 1_000, CostConfig(), CostTracker("0.001"), client=clients["openai"])
    assert caught.value.requested > Decimal("0.001")
    pipeline = CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": "0.001"}]))
    with pytest.raises(BudgetExceededError):
        process_many(["hello"] * 1_000, pipeline, CostTracker(None), client=clients["openai"])
    assert not sim.requests


def test_a_budget_that_ends_in_the_middle_returns_what_is_done_with_what_is_not(sim, clients):
    sim.responder = lambda request: Answer(text="long answer", output_tokens=2_000)
    pipeline = CostPipeline(
        CostConfig(
            budgets=[{"scope": "global", "limit": "0.05"}],
            output={"default_max_tokens": 2_000, "on_insufficient": ["raise"]},
        )
    )
    items = [f"question {number}" for number in range(8)]
    batch = process_many(items, pipeline, CostTracker(None), client=clients["anthropic"])
    assert batch.exhausted is not None
    assert 0 < len(batch.done) < 8
    assert [item for _, item in batch.remaining] == items[len(batch.done) :]
    assert len(sim.bill.lines) == len(batch.done)
    assert sim.bill.total_nanousd <= 50_000_000
    assert batch.tracker.total_cost == Decimal(sim.bill.total_nanousd).scaleb(-9)


def test_an_item_that_fails_ends_the_batch_or_is_collected(sim, clients):
    def only_the_second(request):
        return b"poison" in request.body if isinstance(request.body, bytes) else "poison" in str(request.body)

    sim.script(Fault.status(400), times=2, match=only_the_second)
    items = ["fine", "poison", "fine too"]
    with pytest.raises(openai.BadRequestError) as caught:
        process_many(items, CostConfig(), CostTracker(), client=clients["openai"])
    assert [index for index, _ in caught.value.batch.done] == [0]
    batch = process_many(items, CostConfig(), CostTracker(), client=clients["openai"], on_error="collect")
    assert [index for index, _ in batch.done] == [0, 2]
    assert [index for index, _ in batch.failed] == [1]
    assert batch.remaining == ((1, "poison"),)


async def test_the_async_batch_runs_side_by_side_and_stays_inside_the_budget(sim, async_clients):
    sim.responder, sim.latency_s = fill, 0.02
    pipeline = CostPipeline(
        CostConfig(
            budgets=[{"scope": "global", "limit": "0.06"}],
            output={"default_max_tokens": 1_000, "on_insufficient": ["raise"]},
        )
    )
    items = [f"question {number}" for number in range(20)]
    batch = await aprocess_many(items, pipeline, CostTracker(None), client=async_clients["anthropic"], concurrency=10)
    assert sim.bill.total_nanousd <= 60_000_000
    assert batch.exhausted is not None
    assert len(batch.done) == sum(sent.path == "/v1/messages" for sent in sim.requests)  # beside counts of tokens
    assert len(batch.done) + len(batch.remaining) == 20
    assert batch.tracker.total_cost == Decimal(sim.bill.total_nanousd).scaleb(-9)


def test_progress_is_shown_on_standard_error_only(clients, capsys):
    process_many(["a", "b"], CostConfig(), CostTracker(), client=clients["openai"], progress=True)
    shown = capsys.readouterr()
    assert "2/2" in shown.err
    assert shown.out == ""
