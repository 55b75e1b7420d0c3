"""Middleware inside a client of Anthropic's: it sees every request, and sends none that nothing is held for."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import anthropic
import pytest

from llm_cost_middleware.errors import LLMCostError
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.simulator import Fault

CLAUDE = {"model": "claude-haiku-4-5", "max_tokens": 40, "messages": [{"role": "user", "content": "Hello"}]}
pytestmark = pytest.mark.skipif(
    not hasattr(anthropic.Anthropic, "with_middleware"), reason="this version of the SDK has no middleware"
)


def twice(request, call_next):
    call_next(request)
    return call_next(request)


async def atwice(request, call_next):
    await call_next(request)
    return await call_next(request)


def once(request, call_next):
    return call_next(request)


def made(harness, middleware, way):
    plain = {"base_url": harness.sim.anthropic_url, "api_key": "k"}
    if way == "own":
        return wrap_anthropic(anthropic.Anthropic(**plain, middleware=[once, middleware]), harness.pipeline)
    wrapped = wrap_anthropic(anthropic.Anthropic(**plain, middleware=[once]), harness.pipeline)
    return wrapped.with_middleware(middleware) if way == "added" else wrapped.with_options(middleware=[middleware])


every_way = pytest.mark.parametrize("way", ["own", "added", "optioned"])


@every_way
def test_a_second_request_in_one_attempt_is_not_sent_and_the_answer_to_the_first_is_delivered(harness, way):
    refused = []

    def again(request, call_next):
        call_next(request)
        try:
            return call_next(request)
        except LLMCostError as error:
            refused.append(str(error))
            raise

    client = made(harness, again, way)
    assert client.messages.create(**CLAUDE).usage.output_tokens
    assert list(client.messages.create(**CLAUDE, stream=True))
    assert client.messages.with_raw_response.create(**CLAUDE).parse().usage.output_tokens
    assert "let [retry] repeat it" in refused[0]
    assert harness.sim.request_count == len(refused) == 3
    harness.agree()


@every_way
def test_what_sends_once_is_served_as_ever(harness, way):
    client = made(harness, once, way)
    client.messages.create(**CLAUDE)
    list(client.messages.create(**CLAUDE, stream=True))
    client.with_options(timeout=20).messages.with_raw_response.create(**CLAUDE).parse()
    client.messages.count_tokens(**{name: CLAUDE[name] for name in ("model", "messages")})
    assert harness.sim.request_count == 4
    assert len(harness.pipeline.records()) == 3
    harness.agree()


def test_each_of_our_own_attempts_may_leave(harness):
    client = made(harness, once, "own")
    harness.sim.script(Fault.status(529), times=2)
    client.messages.create(**CLAUDE)
    assert harness.sim.request_count == 3
    harness.agree()


def test_what_a_middleware_would_repeat_is_repeated_by_retry(harness):
    def retrying(request, call_next):
        answer = call_next(request)
        return call_next(request) if answer.status_code == 529 else answer

    client = made(harness, retrying, "own")
    harness.sim.script(Fault.status(529), times=2)
    client.messages.create(**CLAUDE)
    assert harness.sim.request_count == 3
    harness.agree()


def pooled(request, call_next):
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(call_next, request), pool.submit(call_next, request)
        return [second.result(), first.result()][0]


def left_behind(request, call_next):
    pool = ThreadPoolExecutor(2)
    pool.submit(call_next, request)
    try:
        return pool.submit(call_next, request).result()
    finally:
        pool.shutdown(wait=False)


async def gathered(request, call_next):
    return (await asyncio.gather(call_next(request), call_next(request)))[0]


async def threaded(request, call_next):
    loop = asyncio.get_running_loop()

    def send():
        return asyncio.run_coroutine_threadsafe(call_next(request), loop).result()

    return (await asyncio.gather(asyncio.to_thread(send), asyncio.to_thread(send)))[0]


def serve(harness, middleware, ask):
    """What a client with ``middleware`` answers, asynchronous where the middleware is."""
    plain = {"base_url": harness.sim.anthropic_url, "api_key": "k", "middleware": [middleware]}
    if not asyncio.iscoroutinefunction(middleware):
        return ask(wrap_anthropic(anthropic.Anthropic(**plain), harness.pipeline))

    async def aserve():
        async with anthropic.AsyncAnthropic(**plain) as client:
            return await ask(wrap_anthropic(client, harness.pipeline))

    return asyncio.run(aserve())


@pytest.mark.parametrize("hedge", [twice, pooled, left_behind, atwice, gathered, threaded])
def test_a_hedge_from_threads_or_tasks_sends_once_and_delivers_its_answer(harness, hedge):
    answer = serve(harness, hedge, lambda client: client.messages.create(**CLAUDE))
    assert answer.usage.output_tokens
    assert harness.sim.request_count == 1
    harness.agree()


def test_what_is_sent_after_its_attempt_is_refused(harness):
    kept = []

    def keeping(request, call_next):
        kept.append((request, call_next))
        raise ValueError("not today")

    with pytest.raises(ValueError, match="not today"):
        made(harness, keeping, "own").messages.create(**CLAUDE)
    (request, call_next), *_ = kept
    with pytest.raises(LLMCostError, match="middleware"):
        call_next(request)
    assert harness.sim.request_count == 0


@pytest.mark.parametrize("status", [200, 529])
def test_an_answer_that_a_middleware_throws_away_is_booked(harness, status):
    def failing(request, call_next):
        call_next(request)
        raise ValueError("not good enough")

    if status != 200:
        harness.sim.script(Fault.status(status))
    with pytest.raises(ValueError, match="not good enough"):
        made(harness, failing, "own").messages.create(**CLAUDE)
    assert harness.sim.request_count == 1
    assert harness.settled >= harness.sim.bill.total_nanousd


async def grouped(request, call_next):
    async with asyncio.TaskGroup() as group:
        first = group.create_task(call_next(request))
        group.create_task(call_next(request))
    return first.result()


def test_a_request_that_a_middleware_breaks_off_is_booked(harness):
    with pytest.raises(ExceptionGroup):
        serve(harness, grouped, lambda client: client.messages.create(**CLAUDE))
    assert harness.sim.request_count <= 1
    harness.cover()


INSIDE = {
    "free": lambda client: client.messages.count_tokens(**{name: CLAUDE[name] for name in ("model", "messages")}),
    "governed": lambda client: client.messages.create(**CLAUDE, metadata={"user_id": "inside"}),
}


@pytest.mark.parametrize("how", INSIDE)
@pytest.mark.parametrize("whose", ["same", "other"])
@pytest.mark.parametrize("where", ["here", "in a thread"])
def test_another_request_on_the_way_leaves_the_permission_alone(harness, how, whose, where):
    clients, deep = {}, []

    def asking(request, call_next):
        if deep or request.url != "/v1/messages":
            return call_next(request)
        deep.append(None)
        if where == "here":
            INSIDE[how](clients[whose])
        else:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(INSIDE[how], clients[whose]).result()
        deep.clear()
        return call_next(request)

    clients["same"], clients["other"] = made(harness, asking, "own"), made(harness, once, "added")
    assert clients["same"].messages.create(**CLAUDE).usage.output_tokens
    assert harness.sim.request_count == 2
    harness.agree()
    assert len(harness.pipeline.records()) == (2 if how == "governed" else 1)


@pytest.mark.parametrize("how", INSIDE)
def test_another_request_on_the_way_of_a_task(harness, how):
    async def ask():
        deep = []

        async def asking(request, call_next):
            if not deep and request.url == "/v1/messages":
                deep.append(None)
                await asyncio.gather(INSIDE[how](client), asyncio.create_task(call_next(request)))
                return await call_next(request)
            return await call_next(request)

        plain = anthropic.AsyncAnthropic(base_url=harness.sim.anthropic_url, api_key="k", middleware=[asking])
        async with plain:
            client = wrap_anthropic(plain, harness.pipeline)
            return await client.messages.create(**CLAUDE)

    assert asyncio.run(ask()).usage.output_tokens
    assert harness.sim.request_count == 2
    harness.agree()


def test_a_free_request_cannot_be_turned_into_one_that_nothing_is_held_for(harness):
    def turning(request, call_next):
        return call_next(request.copy(url="/v1/messages", body=CLAUDE))

    with pytest.raises(LLMCostError, match="middleware"):
        INSIDE["free"](made(harness, turning, "own"))
    assert harness.sim.request_count == 0


def test_a_free_request_that_the_middleware_makes_with_its_own_means(harness):
    def counting(request, call_next):
        if request.url == "/v1/messages":
            body = {name: CLAUDE[name] for name in ("model", "messages")}
            call_next(request.copy(url="/v1/messages/count_tokens", body=body))
        return call_next(request)

    made(harness, counting, "own").messages.create(**CLAUDE)
    assert harness.sim.request_count == 2
    harness.agree()


def test_objects_of_the_class_of_the_sdk_run_in_their_order(harness):
    seen = []

    class Watching(anthropic.Middleware):
        def handle(self, request, call_next):
            seen.append("object")
            return call_next(request)

        async def handle_async(self, request, call_next):
            seen.append("object")
            return await call_next(request)

    def watching(request, call_next):
        seen.append("function")
        return call_next(request)

    async def awatching(request, call_next):
        seen.append("function")
        return await call_next(request)

    client = made(harness, Watching(), "added").with_middleware(watching)
    client.with_options(middleware=[*client.middleware, watching]).messages.create(**CLAUDE)
    assert seen == ["object", "function", "function"]

    async def ask():
        plain = anthropic.AsyncAnthropic(base_url=harness.sim.anthropic_url, api_key="k", middleware=[awatching])
        async with plain:
            await wrap_anthropic(plain, harness.pipeline).with_middleware(Watching()).messages.create(**CLAUDE)

    asyncio.run(ask())
    assert seen[3:] == ["function", "object"]
    harness.agree()


CHANGES = {
    "model": {"model": "claude-opus-4-5"},
    "cap": {"max_tokens": 4_000},
    "system": {"system": "long " * 300},
    "tools": {"tools": [{"name": "look", "input_schema": {"type": "object"}}]},
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_middleware_makes_dearer_is_refused_or_reported(make_harness, change, caplog):
    """As ``on_ungoverned`` says: nothing is held for it."""

    def dearer(request, call_next):
        return call_next(request.copy(body={**request.json, **CHANGES[change]}))

    strict = make_harness(on_ungoverned="deny")
    with pytest.raises(LLMCostError, match="middleware"):
        made(strict, dearer, "own").messages.create(**CLAUDE)
    assert (strict.sim.request_count, strict.settled) == (0, 0)
    loose = make_harness()
    made(loose, dearer, "own").messages.create(**CLAUDE)
    assert loose.settled == loose.sim.bill.total_nanousd > 0
    assert "that a middleware changes is not governed: no money is held for that" in caplog.text


def test_what_a_middleware_makes_cheaper_or_other_is_served(make_harness):
    harness = make_harness(on_ungoverned="deny")

    def masking(request, call_next):
        body = {**request.json, "max_tokens": 20, "messages": [{"role": "user", "content": "H"}]}
        return call_next(request.copy(body={**body, "metadata": {"user_id": "u"}}, headers={"x-trace": "1"}))

    made(harness, masking, "own").messages.create(**CLAUDE)
    harness.agree()


@pytest.mark.parametrize(
    "url", ["HTTP:v1/messages", "/v1/./messages", "//x/v1/messages", "/v1/messages?beta=true", "/p/x"]
)
def test_a_middleware_that_writes_the_path_anew_sends_once_too(harness, url):
    def again(request, call_next):
        call_next(request.copy(url=url))
        return call_next(request.copy(url=url))

    client = made(harness, again, "own")
    if url == "/p/x":
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(**CLAUDE)
    else:
        client.messages.create(**CLAUDE)
    assert harness.sim.request_count == 1
    harness.agree()
