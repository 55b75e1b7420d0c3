"""What governing adds to a call and to a chunk, in a loop of its own and in every host, beside the bare host.

``python tests/benchmarks/hosts.py [ROUNDS]`` prints one table, of one run: microseconds of CPU of the calling thread.
Each round gives bare and governed their turn; what is told is the median over the rounds, and an addition is the median
of the differences within a round. Nothing is sent: transports, a model and ``mock_response`` answer in this process, so
that what remains is Python on both sides. The first lines name the interpreter and how it was built.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import platform
import queue
import sys
import sysconfig
import time
import warnings
from importlib.metadata import version
from statistics import median

import anthropic
import httpx
import httpx2
import openai
import short_call

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallResult

CALLS = 20
CHUNKS = 400
BOTH = frozenset({"anthropic", "openai"})
HAIKU, MINI = "claude-haiku-4-5-20251001", "gpt-5-mini"
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": HAIKU, "stop_sequence": None,
    "content": [{"type": "text", "text": "An answer."}], "stop_reason": "end_turn",
    "usage": {"input_tokens": 100, "output_tokens": 10},
}  # fmt: skip
CHAT = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MINI,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "An answer."}}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
}  # fmt: skip


def claude_events(chunks):
    """An answer of Claude's API as a stream."""
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word "}}
    events = [
        {"type": "message_start", "message": MESSAGE | {"content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *[delta] * chunks,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": chunks}},
        {"type": "message_stop"},
    ]
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


def gpt_events(chunks):
    """An answer of OpenAI's API as a stream."""
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MINI}
    words = base | {"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]}
    last = base | {"choices": [], "usage": CHAT["usage"]}
    lines = [json.dumps(words)] * chunks + [json.dumps(last), "[DONE]"]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def transport(kit, plain, events, *, asynchronous=False):
    """A client of the SDK's own HTTP library that is answered in this process."""
    streams = {count: events(count) for count in (1, CHUNKS + 1)}

    def answer(request):
        asked = json.loads(request.content)
        if asked.get("stream"):
            length = CHUNKS + 1 if "many" in asked["messages"][0]["content"] else 1
            return kit.Response(200, content=streams[length], headers={"content-type": "text/event-stream"})
        return kit.Response(200, json=plain)

    return (kit.AsyncClient if asynchronous else kit.Client)(transport=kit.MockTransport(answer))


def pipeline():
    """A pipeline with a budget, on a ledger in memory."""
    return CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": "9000"}]))


class Chunks:
    """A host's open stream of bare objects, for a pipeline without a host."""

    def __init__(self, count):
        self._count = count

    def __iter__(self):
        return iter(range(self._count))

    async def __aiter__(self):
        for at in range(self._count):
            yield at

    def reading(self):
        return short_call.USAGE

    def close(self):
        pass

    async def aclose(self):
        pass


def drain(chunks):
    """Read a stream to its end."""
    for _ in chunks:
        pass


async def adrain(chunks):
    """Read a stream to its end."""
    async for _ in chunks:
        pass


def in_loop(runner):
    """A pipeline called in a loop of its own: with what a host would have read, and an answer at hand."""
    read = get_provider("openai").read_request
    ready = pipeline()
    result = CallResult(object(), short_call.USAGE)
    count = {"few": 1, "many": CHUNKS + 1}

    async def result_of(_):
        return result

    async def stream_of(text):
        return Chunks(count[text])

    def ask(body):
        return read(body, "chat.completions")

    def plain(number):
        return ask({**short_call.BODY, "messages": [{"role": "user", "content": f"{number:08}" + "x" * 492}]})

    async def governed(number):
        return await ready.arun(plain(number), result_of, providers=BOTH)

    async def streamed(text):
        await adrain(await ready.arun(ask(short_call.BODY), lambda _: stream_of(text), providers=BOTH))

    async def nothing():
        return result

    yield "in a loop", lambda n: None, lambda n: ready.run(plain(n), lambda _: result, providers=BOTH)
    yield "in a loop, async", lambda n: runner.run(nothing()), lambda n: runner.run(governed(n))
    yield (
        "in a loop, chunk", lambda t: drain(Chunks(count[t])),
        lambda t: drain(ready.run(ask(short_call.BODY), lambda _: Chunks(count[t]), providers=BOTH)),
    )  # fmt: skip
    yield (
        "in a loop, async, chunk", lambda t: runner.run(adrain(Chunks(count[t]))),
        lambda t: runner.run(streamed(t)),
    )  # fmt: skip


def sdks(runner):
    """Both SDKs, their clients of either kind."""
    for name, kit, plain, events, kinds, wrap in (
        ("openai", httpx, CHAT, gpt_events, (openai.OpenAI, openai.AsyncOpenAI), wrap_openai),
        ("anthropic", httpx2, MESSAGE, claude_events, (anthropic.Anthropic, anthropic.AsyncAnthropic), wrap_anthropic),
    ):
        for at, kind in enumerate(kinds):
            client = kind(api_key="k", http_client=transport(kit, plain, events, asynchronous=bool(at)), max_retries=0)
            wrapped = wrap(client, pipeline())

            def ask(client, text, *, name=name, **more):
                turn = [{"role": "user", "content": f"{text} " + "word " * 98}]
                if name == "anthropic":
                    return client.messages.create(model=HAIKU, max_tokens=64, messages=turn, **more)
                return client.chat.completions.create(model=MINI, max_completion_tokens=64, messages=turn, **more)

            def call(client, *, at=at, ask=ask):
                return (lambda n: runner.run(ask(client, n))) if at else (lambda n: ask(client, n))

            def chunks(client, *, at=at, ask=ask):
                async def adrained(text):
                    await adrain(await ask(client, text, stream=True))

                if at:
                    return lambda text: runner.run(adrained(text))
                return lambda text: drain(ask(client, text, stream=True))

            title = kind.__name__
            yield title, call(client), call(wrapped)
            yield f"{title}, chunk", chunks(client), chunks(wrapped)


def langchain(runner):
    """LangChain's model, guarded, and with the handler that only meters."""
    from langchain_anthropic import ChatAnthropic
    from langchain_core.messages import AIMessage, AIMessageChunk
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

    from llm_cost_middleware.integrations.langchain import CostCallbackHandler, guard

    class Cut(ChatAnthropic):
        """A ChatAnthropic that sends nothing: its answers are made on the spot, with usage."""

        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            message = AIMessage(
                "fine",
                response_metadata={"model_name": HAIKU, "model_provider": "anthropic"},
                usage_metadata={"input_tokens": 140, "output_tokens": 30, "total_tokens": 170},
            )
            raw = {"input_tokens": 140, "output_tokens": 30, "service_tier": "standard"}
            output = {"id": "msg_1", "model": HAIKU, "stop_reason": "end_turn", "usage": raw, "model_name": HAIKU}
            return ChatResult(generations=[ChatGeneration(message=message)], llm_output=output)

        async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
            return self._generate(messages)

        def _stream(self, messages, stop=None, run_manager=None, **kwargs):
            for _ in range(CHUNKS + 1 if "many" in messages[0].content else 1):
                message = AIMessageChunk("token", response_metadata={"model_provider": "anthropic"})
                yield ChatGenerationChunk(message=message)
            said = {"stop_reason": "end_turn", "model_name": HAIKU}
            counted = {"input_tokens": 140, "output_tokens": 30, "total_tokens": 170}
            last = AIMessageChunk("", usage_metadata=counted, response_metadata=said, chunk_position="last")
            yield ChatGenerationChunk(message=last)

    plain = Cut(model=HAIKU, api_key="k")
    guarded, metered = guard(plain, pipeline()), {"callbacks": [CostCallbackHandler(pipeline())]}
    ask = "{} " + "word " * 98
    yield "LangChain, guard", lambda n: plain.invoke(ask.format(n)), lambda n: guarded.invoke(ask.format(n))
    yield (
        "LangChain, guard, async", lambda n: runner.run(plain.ainvoke(ask.format(n))),
        lambda n: runner.run(guarded.ainvoke(ask.format(n))),
    )  # fmt: skip
    yield "LangChain, guard, chunk", lambda t: drain(plain.stream(t)), lambda t: drain(guarded.stream(t))
    yield "LangChain, handler", lambda n: plain.invoke(ask.format(n)), lambda n: plain.invoke(ask.format(n), metered)
    yield "LangChain, handler, chunk", lambda t: drain(plain.stream(t)), lambda t: drain(plain.stream(t, metered))


def router(runner):
    """LiteLLM's router, by itself and as a ``CostAwareRouter``."""
    import litellm

    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    entry = {"model_name": "mini", "litellm_params": {"model": f"openai/{MINI}", "api_key": "k"}}
    plain = litellm.Router(model_list=[entry], num_retries=0)
    governed = CostAwareRouter([entry], pipeline=pipeline())

    def ask(router):
        def call(number):
            turn = [{"role": "user", "content": f"{number} " + "word " * 98}]
            return router.completion("mini", turn, max_tokens=64, mock_response="An answer of a few words.")

        return call

    def aask(router):
        def call(number):
            turn = [{"role": "user", "content": f"{number} " + "word " * 98}]
            return runner.run(router.acompletion("mini", turn, max_tokens=64, mock_response="An answer."))

        return call

    yield "LiteLLM's Router", ask(plain), ask(governed)
    yield "LiteLLM's Router, async", aask(plain), aask(governed)


def callback(_):
    """``CostLogger``, told of a call as LiteLLM does it in a thread, behind the answer: there is nothing bare."""
    import litellm
    from litellm.integrations.custom_logger import CustomLogger

    from llm_cost_middleware.integrations.litellm import CostLogger

    class Listener(CustomLogger):
        def log_success_event(self, kwargs, response_obj, start_time, end_time):
            told.put((kwargs, response_obj, start_time, end_time))

    told = queue.SimpleQueue()
    litellm.callbacks = [Listener()]
    client = openai.OpenAI(api_key="k", http_client=transport(httpx, CHAT, gpt_events), max_retries=0)
    litellm.completion(f"openai/{MINI}", [{"role": "user", "content": "word " * 98}], max_tokens=64, client=client)
    kwargs, *answer = told.get(timeout=60)
    litellm.callbacks = []
    logger = CostLogger(pipeline())

    def tell(number):
        call = {**kwargs, "litellm_call_id": str(number)}
        logger.log_pre_api_call(kwargs["model"], kwargs["messages"], call)
        logger.log_success_event(call, *answer)

    tell(-1)
    if not logger.pipeline.records():
        raise SystemExit("CostLogger booked nothing")
    yield "LiteLLM's CostLogger", lambda n: None, tell


def microseconds(call, given):
    """CPU of this thread for a call, on the mean of what is given."""
    began = time.thread_time_ns()
    for each in given:
        call(each)
    return (time.thread_time_ns() - began) / len(given) / 1e3


def compare(title, bare, governed, rounds):
    """Return the bare microseconds and those that governing adds: of a call, or of one chunk by the slope."""
    if title.endswith("chunk"):
        few, many = ["few"], ["many"]

        def measured(call):
            return (microseconds(call, many) - microseconds(call, few)) / CHUNKS
    else:

        def measured(call):
            return microseconds(call, range(next(numbers), next(numbers) + CALLS))

    numbers = iter(range(0, 10**9, CALLS))
    for _ in range(3):
        measured(bare), measured(governed)
    gc.collect()
    found = [(measured(bare), measured(governed)) for _ in range(rounds)]
    return median(base for base, _ in found), median(whole - base for base, whole in found)


def build():
    """The interpreter, and how it was built."""
    flags = " ".join(str(sysconfig.get_config_var(name)) for name in ("CONFIG_ARGS", "PY_CORE_CFLAGS", "CFLAGS"))
    optimised = "--enable-optimizations" in flags or "-fprofile-use" in flags
    return (
        f"{platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}, "
        f"{'with' if optimised else 'without'} profile-guided optimisation, "
        f"{'with' if '-flto' in flags else 'without'} link-time optimisation"
    )


def main(rounds):
    """Print the table."""
    os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", OPENAI_API_KEY="k", ANTHROPIC_API_KEY="k")
    warnings.simplefilter("ignore")
    kits = ("openai", "anthropic", "langchain-core", "litellm")
    print(f"{build()}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(", ".join(f"{name} {version(name)}" for name in kits))
    print(f"{'us of CPU, median of ' + str(rounds) + ' rounds':36}{'bare':>10}{'added':>10}")
    with asyncio.Runner() as runner:
        for host in (in_loop, sdks, langchain, router, callback):
            for title, bare, governed in host(runner):
                base, added = compare(title, bare, governed, rounds)
                places = 2 if title.endswith("chunk") else 0
                print(f"{title:36}{base:>10.{places}f}{added:>10.{places}f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 25)
