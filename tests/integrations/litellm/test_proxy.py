"""A real ``litellm --config`` process of several workers with one ledger, driven by the SDKs of both providers."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import anthropic
import httpx
import openai
import pytest

from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.simulator import Fault

ASK = [{"role": "user", "content": "Count to forty."}]


def chat(proxy, client, **kwargs):
    return client.chat.completions.create(messages=ASK, max_completion_tokens=40, **{"model": "smart", **kwargs})


def responses(proxy, client, **kwargs):
    return client.responses.create(input="Count to forty.", max_output_tokens=40, **{"model": "gpt-5-mini", **kwargs})


def messages(proxy, client, **kwargs):
    kwargs = {"model": "claude-sonnet-4-6", **kwargs}
    return client.messages.create(messages=ASK, max_tokens=40, **kwargs)


DOORS = {"chat": (chat, "gpt"), "responses": (responses, "gpt"), "messages": (messages, "claude")}
every_door = pytest.mark.parametrize("name", DOORS)


@every_door
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["smart", "claude-sonnet-4-6", "gpt-5-mini"])
def test_every_route_is_settled_at_its_price(name, stream, model, proxy):
    door, sdk = DOORS[name]
    before = proxy.since()
    with getattr(proxy, sdk)() as client:
        answer = door(proxy, client, model=model, stream=stream)
        if stream:
            assert len(list(answer)) > 1
    after = proxy.since()
    assert after[0] - before[0] == after[1] - before[1] > 0


@every_door
def test_a_routed_call_keeps_the_cap_that_its_client_set(name, proxy):
    door, sdk = DOORS[name]
    with getattr(proxy, sdk)() as client:
        door(proxy, client, model="smart")
    sent = proxy.sim.requests[-1].body
    caps = [sent[field] for field in ("max_tokens", "max_completion_tokens", "max_output_tokens") if field in sent]
    assert caps == [40]  # LiteLLM's router writes the most that a model gives, unless it is told not to


@every_door
def test_a_client_cannot_make_its_calls_free_by_asking_for_a_mock(name, proxy):
    door, sdk = DOORS[name]
    before, sent = proxy.since(), proxy.sim.request_count
    with getattr(proxy, sdk)() as client:
        for model in ("claude-sonnet-4-6", "gpt-5-mini"):
            door(proxy, client, model=model, extra_body={"mock_response": "made up"})
    after = proxy.since()
    assert after[0] - before[0] == after[1] - before[1]
    assert (after[1] > before[1]) == (proxy.sim.request_count > sent)


@every_door
def test_a_refusal_is_a_429_that_no_sdk_retries(name, proxy):
    door, sdk = DOORS[name]
    sent = proxy.sim.request_count
    with (
        getattr(proxy, sdk)("poor").with_options(max_retries=3) as client,
        pytest.raises((anthropic.RateLimitError, openai.RateLimitError)) as refused,
    ):
        door(proxy, client)
    error = refused.value
    assert error.response.headers["x-should-retry"] == "false"
    assert "retry-after" not in error.response.headers
    assert "resets_at" in error.response.text
    assert "user:poor" in error.response.text
    assert proxy.sim.request_count == sent


def test_a_request_that_cannot_be_read_is_a_400_and_costs_nothing(proxy):
    before = proxy.since()
    with proxy.gpt() as client, pytest.raises(openai.BadRequestError):
        chat(proxy, client, stream=True, extra_body={"stream_options": "x"})
    assert proxy.since() == before  # waits until nothing is pending


def test_tags_have_budgets_too(proxy):
    with proxy.gpt() as client, pytest.raises(openai.RateLimitError, match="tag:tight"):
        chat(proxy, client, extra_body={"metadata": {"tags": ["tight"]}})


def test_a_client_cannot_claim_the_scopes_of_another(proxy):
    with proxy.gpt("poor") as client, pytest.raises(openai.RateLimitError, match="user:poor"):
        chat(proxy, client, extra_body={"metadata": {"llm_cost": {"user": "rich"}}})


def test_keys_users_and_teams_are_booked_by_the_proxys_identity(proxy):
    with proxy.gpt("carol") as client:
        chat(proxy, client)
    assert proxy.spent("user:carol") == proxy.spent("key:carol-key") > 0
    assert proxy.spent("team:blue") >= proxy.spent("user:carol")


def test_headers_report_the_cost_and_the_remaining_budget(proxy):
    with proxy.gpt("dora") as client:
        raw = client.chat.completions.with_raw_response.create(model="smart", messages=ASK, max_completion_tokens=40)
    assert float(raw.headers["x-llm-cost-usd"]) * 1e9 == pytest.approx(proxy.spent("user:dora"))
    assert 0 < float(raw.headers["x-llm-cost-remaining-usd"]) < 100
    assert raw.headers["x-llm-cost-call-id"]


@every_door
def test_a_provider_that_fails_costs_nothing_and_is_asked_once(name, proxy):
    door, sdk = DOORS[name]
    before, sent = proxy.since(), proxy.sim.request_count
    proxy.sim.script(Fault.status(500))
    with getattr(proxy, sdk)() as client, pytest.raises((anthropic.APIStatusError, openai.APIStatusError)):
        door(proxy, client, model="claude-sonnet-4-6")
    assert proxy.sim.request_count == sent + 1
    assert proxy.since() == before


@every_door
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["claude-sonnet-4-6", "gpt-5-mini"])
def test_a_request_whose_connection_is_lost_is_sent_once_and_booked(name, stream, model, proxy):
    door, sdk = DOORS[name]
    before, sent, rows = proxy.since(), proxy.sim.request_count, proxy.resolutions()
    proxy.sim.script(Fault.reset(billed=True))
    with getattr(proxy, sdk)() as client, pytest.raises((anthropic.APIError, openai.APIError)):
        list(door(proxy, client, model=model, stream=stream))
    after = proxy.since()
    assert proxy.sim.request_count == sent + 1
    assert [row.status for row in proxy.resolutions()[len(rows) :]] == ["unconfirmed"]
    assert after[0] - before[0] >= after[1] - before[1] > 0


@every_door
@pytest.mark.parametrize("model", ["claude-sonnet-4-6", "gpt-5-mini"])
def test_a_client_that_goes_away_mid_stream_is_settled(name, model, proxy):
    door, sdk = DOORS[name]
    before = proxy.since()
    proxy.sim.script(Fault.slow(per_chunk_s=0.05))
    with getattr(proxy, sdk)() as client:
        stream = door(proxy, client, model=model, stream=True)
        next(iter(stream))
        stream.close()
    after = proxy.since()
    assert after[0] - before[0] >= after[1] - before[1] > 0


def test_the_usage_chunk_reaches_only_callers_who_asked(proxy):
    with proxy.gpt() as client:
        assert all(chunk.usage is None for chunk in chat(proxy, client, model="gpt-5-mini", stream=True))
        asked = chat(proxy, client, model="gpt-5-mini", stream=True, stream_options={"include_usage": True})
        assert any(chunk.usage is not None for chunk in asked)


RACE = {"model": "gpt-5-mini", "max_completion_tokens": 400, "service_tier": "default"}


def race(proxy, name, limit_nanousd):
    """Fifty at once by one user with a budget of his own: how many were answered, and what the provider bills."""
    proxy.ledger.set_budget(Budget(f"user:{name}", f"{limit_nanousd}e-9"))
    sent, billed = proxy.sim.request_count, proxy.sim.bill.total_nanousd

    def call(_):
        with proxy.gpt(name, timeout=120) as client:
            try:
                return client.chat.completions.create(messages=ASK, **RACE)
            except openai.RateLimitError:
                return None

    with ThreadPoolExecutor(50) as pool:
        answers = [answer for answer in pool.map(call, range(50)) if answer is not None]
    assert len(answers) == proxy.sim.request_count - sent
    bill = proxy.sim.bill.total_nanousd - billed
    assert proxy.spent(f"user:{name}") == bill
    return len(answers), bill


def test_the_race_over_the_workers_sends_exactly_the_five_that_fit(proxy):
    with proxy.gpt("probe") as client:
        client.chat.completions.create(messages=ASK, **RACE)
    # an answer runs up to its cap: what five of them give back is less than a sixth call reserves
    (bound,) = (row.amount_nanousd for row in proxy.rows("user:probe") if row.kind == "reserve")
    count, bill = race(proxy, "racer", 5 * bound)
    assert count == 5
    assert 0 < bill <= 5 * bound


def test_the_race_for_a_budget_of_five_true_costs_never_bills_more(proxy):
    with proxy.gpt("pricer") as client:
        client.chat.completions.create(messages=ASK, **RACE)
    cost = proxy.spent("user:pricer")
    count, bill = race(proxy, "runner", 5 * cost)
    assert 0 < count <= 5
    assert bill <= 5 * cost


async def test_a_request_that_its_client_cancels_is_settled(proxy):
    before, sent = proxy.since(), proxy.sim.request_count
    proxy.sim.script(Fault.slow(delay_s=1.0))
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="sk-alice", max_retries=0) as client:
        asking = asyncio.create_task(
            client.chat.completions.create(model="gpt-5-mini", messages=ASK, max_completion_tokens=40)
        )
        await asyncio.to_thread(proxy.wait_for_request, sent + 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    after = await asyncio.to_thread(proxy.since)
    assert after[0] - before[0] >= after[1] - before[1] > 0


SEVERAL = "gpt-5-mini,gpt-5.1"


def ask_several(proxy, name, model=SEVERAL, **more):
    body = {"model": model, "messages": ASK, "max_completion_tokens": 40, **more}
    headers = {"authorization": f"Bearer sk-{name}"}
    return httpx.post(f"{proxy.url}/v1/chat/completions", json=body, headers=headers, timeout=120)


@pytest.mark.parametrize("more", [{}, {"fastest_response": True}])
def test_several_models_that_do_not_fit_together_are_refused_as_one_request(more, proxy):
    billed = proxy.sim.bill.total_nanousd  # counting before a refusal is free
    answer = ask_several(proxy, "poor", **more)
    assert (answer.status_code, proxy.sim.bill.total_nanousd) == (429, billed)
    assert "user:poor" in answer.text
    assert proxy.spent("user:poor") == 0


def test_several_models_that_fit_are_each_booked(proxy):
    before, bill = proxy.since()
    answer = ask_several(proxy, "alice")
    assert [item["object"] for item in answer.json()] == ["chat.completion"] * 2
    after = proxy.since()
    assert after[0] - before == after[1] - bill > 0


@pytest.mark.parametrize("more", [{}, {"fastest_response": True}])
def test_a_stream_of_several_models_is_refused(more, proxy):
    before, rows = proxy.since(), len(proxy.rows())
    answer = ask_several(proxy, "alice", stream=True, **more)
    assert answer.status_code == 400
    assert "ask for each by itself" in answer.text
    assert (proxy.since(), len(proxy.rows())) == (before, rows)


def test_the_slower_of_several_is_booked_when_it_is_given_up(proxy):
    before, bill = proxy.since()
    proxy.sim.script(Fault.slow(delay_s=3.0), match=lambda request: request.body["model"] == "gpt-5.1")
    answer = ask_several(proxy, "alice", fastest_response=True)
    assert answer.json()["model"].startswith("gpt-5-mini")
    after = proxy.since()  # waits until nothing is pending
    assert after[0] - before >= after[1] - bill > 0
