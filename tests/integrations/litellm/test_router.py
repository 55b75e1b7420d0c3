"""The life of a call through ``CostAwareRouter``, API by API, synchronous and asynchronous."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import inspect
import itertools

import pytest

from llm_cost_middleware.context import cost_context
from llm_cost_middleware.errors import BudgetExceededError, UnknownKeyError
from llm_cost_middleware.simulator import Fault

ASK = [{"role": "user", "content": "Count to forty."}]
CLAUDE, GPT = "claude-sonnet-4-6", "gpt-5-mini"


def completion(router, model, **kwargs):
    return router.completion(model, ASK, max_tokens=40, **kwargs)


def responses(router, model, **kwargs):
    return router.responses(model=model, input="Count to forty.", max_output_tokens=40, **kwargs)


def acompletion(router, model, **kwargs):
    return router.acompletion(model, ASK, max_tokens=40, **kwargs)


def aresponses(router, model, **kwargs):
    return router.aresponses(model=model, input="Count to forty.", max_output_tokens=40, **kwargs)


def anthropic_messages(router, model, **kwargs):
    return router.anthropic_messages(model=model, messages=ASK, max_tokens=40, **kwargs)


def require_proxy():
    """LiteLLM streams the messages API with a package of its proxy extra alone."""
    if importlib.util.find_spec("fastapi") is None:
        pytest.skip("needs the proxy extra, which has no LiteLLM >= 1.110 here")


SYNC = [completion, responses]
ASYNC = [acompletion, aresponses, anthropic_messages]
every_door = pytest.mark.parametrize("door", [*SYNC, *ASYNC], ids=lambda door: door.__name__)
every_model = pytest.mark.parametrize("model", [CLAUDE, GPT])


def thinned(*axes):
    """Every value of every axis in the short form, with every value of its neighbour; the product in the long one."""
    params = []
    for at in itertools.product(*(range(len(axis)) for axis in axes)):
        values = [axis[i] for axis, i in zip(axes, at, strict=True)]
        short = sum(at) % max(map(len, axes[1:])) == 0
        params.append(pytest.param(*values, marks=() if short else pytest.mark.soak, id="-".join(map(_named, values))))
    return params


def _named(value):
    return getattr(value, "__name__", None) or getattr(value, "kind", "") + str(getattr(value, "code", value))


async def opened(door, *args, **kwargs):
    """What a door returns, off the loop for synchronous ones."""
    if door is anthropic_messages and kwargs.get("stream"):
        require_proxy()
    if door in ASYNC:
        return await door(*args, **kwargs)
    return await asyncio.to_thread(door, *args, **kwargs)


async def exhaust(stream):
    if hasattr(stream, "__anext__") and not _is_sync(stream):
        return [chunk async for chunk in stream]
    return await asyncio.to_thread(list, stream)


def _is_sync(stream):
    from llm_cost_middleware.lifecycle import GovernedStream

    return isinstance(getattr(stream, "completion_stream", stream), GovernedStream)


def events(chunks):
    """How many events came: a Messages stream comes as bytes, and the network joins and parts those as it likes."""
    return sum(chunk.count(b"event: ") if isinstance(chunk, bytes) else 1 for chunk in chunks)


async def collected():
    for _ in range(3):
        gc.collect()
        await asyncio.sleep(0.01)


@every_door
@every_model
async def test_answers_and_streams_are_booked_at_their_price(door, model, harness, router):
    answer = await opened(door, router, model)
    stream = await opened(door, router, model, stream=True)
    assert events(await exhaust(stream)) > 1
    harness.agree()
    assert len(harness.statuses) == 2
    assert (answer["usage"] if isinstance(answer, dict) else answer.usage) is not None


@pytest.mark.parametrize(
    ("door", "fault", "model", "stream"),
    thinned(
        [*SYNC, *ASYNC],
        [Fault.status(500), Fault.status(429, retry_after=0), Fault.overloaded()],
        [CLAUDE, GPT],
        [False, True],
    ),
)
async def test_a_passing_fault_is_retried_once_and_only_here(door, model, stream, fault, harness, router):
    harness.sim.script(fault)
    answer = await opened(door, router, model, stream=stream)
    if stream:
        await exhaust(answer)
    assert harness.sim.request_count == 2
    harness.agree()


@pytest.mark.parametrize(
    ("door", "fault", "model"),
    thinned([*SYNC, *ASYNC], [Fault.status(400), Fault.status(401), Fault.insufficient_quota()], [CLAUDE, GPT]),
)
async def test_a_permanent_fault_is_sent_once_and_costs_nothing(door, model, fault, harness, router):
    harness.sim.script(fault, times=6)
    with pytest.raises(Exception, match=r"."):  # noqa: B017, PT011, RUF100 - LiteLLM's classes differ by endpoint
        await opened(door, router, model)
    assert harness.sim.request_count == 1
    assert harness.settled == 0


@pytest.mark.parametrize(("door", "model"), thinned([*SYNC, *ASYNC], [CLAUDE, GPT]))
async def test_a_timeout_is_booked_because_the_provider_may_have_billed_it(door, model, make_harness):
    harness = make_harness(retry={"max_attempts": 1})
    harness.sim.script(Fault.hang(billed=True))
    with pytest.raises(Exception, match=r"(?i)time"):
        await opened(door, harness.router(), model, timeout=0.4)
    await harness.reached()
    assert harness.statuses == ["unconfirmed"]
    assert harness.settled >= harness.sim.bill.total_nanousd > 0


LEAVING = ["break", "close", "drop", "raise", "never"]


@pytest.mark.parametrize(("door", "leave", "model"), thinned([*SYNC, *ASYNC], LEAVING, [CLAUDE, GPT]))
async def test_a_stream_left_early_is_settled_however_it_is_left(door, model, leave, harness, router):
    async def consume():
        harness.sim.script(Fault.slow(per_chunk_s=0.02))
        stream = await opened(door, router, model, stream=True)
        if leave == "never":
            return
        if leave == "raise":
            with pytest.raises(ZeroDivisionError):
                await _fail_inside(stream)
            return
        await _next(stream)
        if leave == "close":
            for _ in range(2):
                closed = stream.close() if _is_sync(stream) else stream.aclose()
                if inspect.isawaitable(closed):
                    await closed

    await asyncio.create_task(consume())
    await collected()
    harness.cover()


async def _next(stream):
    return next(stream) if _is_sync(stream) else await anext(stream)


async def _fail_inside(stream):
    await _next(stream)
    1 / 0  # noqa: B018 - a consumer that fails


@pytest.mark.parametrize("door", ASYNC, ids=lambda door: door.__name__)
@every_model
async def test_a_consumer_that_is_cancelled_settles(door, model, harness, router):
    harness.sim.script(Fault.stall(after=5))
    stream = await opened(door, router, model, stream=True)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(exhaust(stream), 0.3)
    del stream
    await collected()
    harness.cover()


@pytest.mark.parametrize("door", ASYNC, ids=lambda door: door.__name__)
@pytest.mark.parametrize(("model", "stream"), [(CLAUDE, False), (GPT, False), (CLAUDE, True), (GPT, True)])
async def test_a_call_cancelled_in_flight_is_booked_because_it_may_be_billed(door, model, stream, harness, router):
    harness.sim.script(Fault.hang(billed=True))
    if door is anthropic_messages and stream:
        require_proxy()
    asking = asyncio.ensure_future(door(router, model, stream=stream))
    await harness.reached()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert harness.statuses == ["unconfirmed"]
    assert harness.settled >= harness.sim.bill.total_nanousd > 0


@pytest.mark.parametrize(("door", "model", "clean"), thinned([*SYNC, *ASYNC], [CLAUDE, GPT], [True, False]))
async def test_a_cut_stream_is_never_called_exact(door, model, clean, harness, router):
    harness.sim.script(Fault.cut(after=6, clean=clean))
    stream = await opened(door, router, model, stream=True)
    try:
        await exhaust(stream)
    except Exception as error:  # noqa: BLE001 - whether LiteLLM raises depends on the endpoint; what is booked does not
        assert not isinstance(error, BudgetExceededError)  # noqa: PT017 - either end is right
    harness.cover()


@every_door
@every_model
async def test_an_answer_without_usage_is_never_free(door, model, harness, router):
    harness.sim.script(Fault.no_usage())
    try:
        await opened(door, router, model)
    except Exception as error:  # noqa: BLE001 - LiteLLM cannot read some of them; the provider billed it all the same
        assert not isinstance(error, BudgetExceededError)  # noqa: PT017 - either end is right
    assert harness.settled >= harness.sim.bill.total_nanousd > 0


async def test_a_synchronous_call_works_inside_a_running_loop(harness, router):
    with cost_context(user="7"):
        completion(router, "smart")
        list(completion(router, "smart", stream=True))
    harness.agree()
    assert harness.pipeline.ledger.balance("user:7").settled_nanousd == harness.sim.bill.total_nanousd


def test_what_does_not_fit_is_refused_before_it_is_sent(make_harness):
    harness = make_harness(budgets=[{"scope": "global", "limit": "0.000001"}])
    router = harness.router(cooldown_time=0.001)
    for door in SYNC:
        with pytest.raises(BudgetExceededError):
            door(router, "smart")
    for door in ASYNC:
        with pytest.raises(BudgetExceededError):
            asyncio.run(door(router, "smart"))
    assert harness.sim.request_count == 0


@every_door
async def test_a_call_names_its_scopes_and_nothing_of_it_reaches_the_provider(door, harness, router):
    said = {"llm_cost": {"user": "42", "site": "faq"}, "trace": "t-1"}
    await opened(door, router, GPT, metadata=said)
    assert said == {"llm_cost": {"user": "42", "site": "faq"}, "trace": "t-1"}
    assert harness.pipeline.ledger.balance("user:42").settled_nanousd == harness.sim.bill.total_nanousd
    assert "llm_cost" not in repr(harness.sim.requests[0].body)
    assert "llm_cost" not in repr(harness.sim.requests[0].headers)


def test_a_misspelt_key_is_an_error_before_the_call(harness, router):
    with pytest.raises(UnknownKeyError, match="force_model"):
        completion(router, "smart", metadata={"llm_cost": {"force_modell": "x"}})
    assert harness.sim.request_count == 0


def test_nothing_of_the_callers_is_changed(harness, router):
    asked = [
        {"role": "system", "content": "A long manual. " * 1500},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    ]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
    metadata = {"trace": "t"}
    kept = repr((asked, tools, metadata))
    for _ in range(2):
        router.completion(CLAUDE, asked, max_tokens=9, tools=tools, metadata=metadata)
    assert repr((asked, tools, metadata)) == kept
    assert "cache_control" in repr(harness.sim.requests[-1].body)
    harness.agree()


def test_marks_for_claude_never_reach_openai(harness, router):
    marked = [{"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}]
    router.completion(GPT, marked, max_tokens=9)
    assert "cache_control" not in repr(harness.sim.requests[-1].body)
    router.completion(CLAUDE, marked, max_tokens=9)
    assert "cache_control" in repr(harness.sim.requests[-1].body)


def test_messages_may_be_litellms_own_objects(harness, router):
    answer = completion(router, CLAUDE)
    router.completion(CLAUDE, [*ASK, answer.choices[0].message, *ASK], max_tokens=9)
    assert len(harness.sim.requests[-1].body["messages"]) == 3
    harness.agree()


def test_the_usage_chunk_reaches_only_callers_who_asked(harness, router):
    assert all(getattr(chunk, "usage", None) is None for chunk in completion(router, GPT, stream=True))
    chunks = list(completion(router, GPT, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.completion_tokens == 40
    import litellm

    assert isinstance(completion(router, GPT, stream=True), litellm.CustomStreamWrapper)
    assert harness.settled > 0


def test_chat_completions_create_leaks_nothing_from_one_call_to_the_next(harness, router):
    router.chat.completions.create(messages=ASK, model=GPT, max_tokens=9, user="alice", temperature=1)
    router.chat.completions.create(messages=ASK, model=GPT, max_tokens=9)
    first, second = (request.body for request in harness.sim.requests)
    assert first["user"] == "alice"
    assert "user" not in second
    assert "temperature" not in second
    harness.agree()
