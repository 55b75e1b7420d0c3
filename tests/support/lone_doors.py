"""Each door by itself: what it imports, and what it says where a host is not installed. Run as a program.

Argument: JSON with ``openai_url`` and ``anthropic_url`` of a simulator, ``doors`` by name and ``gone``, the packages
that are not to be found. Every door is tried in a fork of a process that has made a pipeline and imported the door's
first host, and nothing else; one line of JSON each.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import json
import os
import sys
import tempfile
import traceback
import warnings
from contextlib import suppress
from typing import NamedTuple

GPT, CLAUDE, ASK = "gpt-5-mini", "claude-haiku-4-5", [{"role": "user", "content": "hi"}]
BOTH = ("openai", "anthropic")


class Door(NamedTuple):
    """One way to use the package, and what whoever uses it has imported himself."""

    use: object
    hosts: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """The public names that this door uses, as module and name within ``integrations``."""
    package: str = ""
    """The name of this door in ``llm-cost doctor``."""


def pipeline():
    from llm_cost_middleware import CostConfig, CostPipeline

    return CostPipeline(CostConfig())


def booked(governed, calls):
    """Ledger and records know every call."""
    assert len(governed.records()) == calls, governed.records()
    assert governed.ledger.balance("global").settled_nanousd > 0


def nothing(urls):
    governed = pipeline()
    governed.ledger.set_budget("global", "5")
    governed.ledger.book("1", ["team:a"], id="1")
    assert governed.ledger.balance("team:a").settled_nanousd == 1_000_000_000


def priced(urls):
    from llm_cost_middleware import price_response

    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    price_response("openai", {"object": "chat.completion", "model": GPT, "usage": usage})


def openai_sdk(urls):
    import openai

    from llm_cost_middleware.integrations.openai import wrap_openai

    governed = pipeline()
    client = wrap_openai(openai.OpenAI(api_key="k", base_url=urls["openai_url"]), governed)
    client.chat.completions.create(model=GPT, messages=ASK)
    list(client.chat.completions.create(model=GPT, messages=ASK, stream=True))
    client.responses.create(model=GPT, input="hi")
    booked(governed, 3)


def openai_embeddings(urls):
    import openai

    from llm_cost_middleware.integrations.openai import wrap_openai

    governed = pipeline()
    client = wrap_openai(openai.OpenAI(api_key="k", base_url=urls["openai_url"]), governed)
    client.embeddings.create(model="text-embedding-3-small", input="hi")
    booked(governed, 1)


def openai_async(urls):
    import asyncio

    import openai

    from llm_cost_middleware.integrations.openai import wrap_openai

    governed = pipeline()

    async def once():
        async with openai.AsyncOpenAI(api_key="k", base_url=urls["openai_url"]) as client:
            await wrap_openai(client, governed).chat.completions.create(model=GPT, messages=ASK)

    asyncio.run(once())
    booked(governed, 1)


def anthropic_sdk(urls):
    import anthropic

    from llm_cost_middleware.integrations.anthropic import wrap_anthropic

    governed = pipeline()
    client = wrap_anthropic(anthropic.Anthropic(api_key="k", base_url=urls["anthropic_url"]), governed)
    client.messages.create(model=CLAUDE, max_tokens=20, messages=ASK)
    with client.messages.stream(model=CLAUDE, max_tokens=20, messages=ASK) as stream:
        stream.get_final_message()
    booked(governed, 2)


def patterns(urls):
    import openai

    from llm_cost_middleware import process, process_many
    from llm_cost_middleware.tracker import CostTracker

    client = openai.OpenAI(api_key="k", base_url=urls["openai_url"])
    process("hi", pipeline(), CostTracker(1), client=client)
    process_many(["hi"], pipeline(), CostTracker(1), client=client)


def chat_openai(urls):
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=GPT, api_key="k", base_url=urls["openai_url"])


def chat_anthropic(urls):
    from langchain_anthropic import ChatAnthropic

    return ChatAnthropic(model=CLAUDE, api_key="k", base_url=urls["anthropic_url"], max_tokens=20)


def langchain_openai(urls):
    from langchain_openai import OpenAIEmbeddings

    from llm_cost_middleware.integrations.langchain import guard, instrument, is_guarded

    governed, model = pipeline(), chat_openai(urls)
    assert is_guarded(guard(model, governed))
    guard(model, governed).invoke("hi")
    list(guard(model, governed).stream("hi"))
    instrument(model | (lambda message: message.text), governed).invoke("hi")
    plain = OpenAIEmbeddings(model="text-embedding-3-small", api_key="k", base_url=urls["openai_url"],
                             check_embedding_ctx_length=False)  # fmt: skip
    guard(plain, governed).embed_query("hi")
    booked(governed, 4)


def langchain_anthropic(urls):
    from llm_cost_middleware.integrations.langchain import guard

    governed = pipeline()
    guard(chat_anthropic(urls), governed).invoke("hi")
    booked(governed, 1)


def handler(urls):
    from llm_cost_middleware.integrations.langchain import (
        CostCallbackHandler,
        FoundModel,
        batch_progress,
        cost_tracking,
        ends_softly,
    )

    from langchain_core.language_models import FakeListChatModel  # isort: skip - what it needs is said before

    del FoundModel, ends_softly, batch_progress
    governed = pipeline()
    FakeListChatModel(responses=["a"]).invoke("hi", config={"callbacks": [CostCallbackHandler(governed)]})
    with cost_tracking(governed):
        pass


def middleware(urls):
    from langchain.agents import create_agent

    from llm_cost_middleware.integrations.langchain import CostMiddleware

    governed = pipeline()
    agent = create_agent(chat_openai(urls), [], middleware=[CostMiddleware(governed)])
    agent.invoke({"messages": [("user", "hi")]})
    booked(governed, 1)


def model_list(urls):
    keys = {"api_key": "k"}
    return [
        {"model_name": "gpt", "litellm_params": {"model": f"openai/{GPT}", "api_base": urls["openai_url"], **keys}},
        {"model_name": "claude",
         "litellm_params": {"model": f"anthropic/{CLAUDE}", "api_base": urls["anthropic_url"], **keys}},
    ]  # fmt: skip


def router(urls):
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    governed = pipeline()
    governing = CostAwareRouter(model_list(urls), pipeline=governed)
    governing.completion("gpt", messages=ASK)
    governing.completion("claude", messages=ASK, max_tokens=20)
    booked(governed, 2)


def logger(urls):
    from llm_cost_middleware.integrations.litellm import CostLogger, proxy_config, router_config

    import litellm  # isort: skip - what it needs is said before

    governed = pipeline()
    del proxy_config, router_config
    litellm.callbacks = [CostLogger(governed)]
    litellm.completion(f"openai/{GPT}", messages=ASK, api_base=urls["openai_url"], api_key="k")


def proxy(urls):
    import llm_cost_middleware.integrations.litellm.proxy

    del llm_cost_middleware


def router_model(urls):
    from langchain_litellm import ChatLiteLLMRouter

    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    governed = pipeline()
    ChatLiteLLMRouter(router=CostAwareRouter(model_list(urls), pipeline=governed), model_name="gpt").invoke("hi")
    booked(governed, 1)


def doctor_door(name):
    """A door that takes no call here: opened as ``llm-cost doctor`` opens it."""

    def use(urls):
        from llm_cost_middleware.cli.doors import DOORS as TRIED

        TRIED[name](pipeline())

    return use


def langchain_names(*names):
    return tuple(f"langchain.{name}" for name in names)


DOORS = {
    "a ledger": Door(nothing),
    "price_response": Door(priced),
    "process_many": Door(patterns, ("openai",)),
    "wrap_openai": Door(openai_sdk, ("openai",), ("openai.wrap_openai",), "openai"),
    "wrap_openai, async": Door(openai_async, ("openai",)),
    "wrap_openai, embeddings": Door(openai_embeddings, ("openai", "numpy")),  # the SDK unpacks vectors with it
    "wrap_anthropic": Door(anthropic_sdk, ("anthropic",), ("anthropic.wrap_anthropic",), "anthropic"),
    "guard, ChatOpenAI": Door(
        langchain_openai, ("langchain_openai", "numpy"), langchain_names("guard", "instrument", "is_guarded"),
        "langchain-openai",
    ),
    "guard, ChatAnthropic": Door(langchain_anthropic, ("langchain_anthropic",), (), "langchain-anthropic"),
    "CostCallbackHandler": Door(
        handler, ("langchain_core.language_models.fake_chat_models",),
        langchain_names("CostCallbackHandler", "FoundModel", "batch_progress", "cost_tracking", "ends_softly"),
        "langchain-core",
    ),
    "CostMiddleware": Door(
        middleware, ("langchain.agents", "langchain_openai"), langchain_names("CostMiddleware"), "langchain"
    ),
    # LiteLLM's choice of a deployment imports its tracing, where that is installed
    "CostAwareRouter": Door(router, ("litellm", "opentelemetry.sdk", "fastapi"),
                            ("litellm.CostAwareRouter",), "litellm"),
    "CostLogger": Door(
        logger, ("litellm",), ("litellm.CostLogger", "litellm.proxy_config", "litellm.router_config")
    ),
    "the proxy's callback": Door(proxy, ("litellm", "fastapi"), (), "fastapi"),
    "ChatLiteLLMRouter": Door(router_model, ("langchain_litellm",), (), "langchain-litellm"),
    **{
        name: Door(doctor_door(name), hosts, (), name)
        for name, hosts in {
            "boto3": ("boto3",), "langchain-aws": ("langchain_aws",),
            "google-auth": ("google.auth",), "langchain-google-vertexai": ("langchain_google_vertexai",),
            "redis": ("redis",), "psycopg": ("psycopg",), "apprise": ("apprise",),
            "opentelemetry-api": ("opentelemetry.sdk",),
            "opentelemetry-exporter-prometheus": (
                "opentelemetry.sdk", "opentelemetry.exporter.prometheus", "prometheus_client",
            ),
            "scikit-learn": ("sklearn.linear_model",), "pyarrow": ("pyarrow.parquet",),
        }.items()
    },
}  # fmt: skip


def watched():
    """Every package that a plain installation or an extra may bring, by the name it is imported by."""
    from llm_cost_middleware.extras import EXTRA_OF

    return {*EXTRA_OF, "tiktoken", "httpx2"}


def loaded():
    return watched() & sys.modules.keys()


def hide(gone):
    class PathFinder(importlib.machinery.PathFinder):
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            return None if name.partition(".")[0] in gone else super().find_spec(name, path, target)

    sys.meta_path[:] = [one for one in sys.meta_path if one is not importlib.machinery.PathFinder]
    sys.meta_path.append(PathFinder)


def tried(door, settings):
    """What the door imported beyond what the hosts bring along by themselves, and how it failed."""
    for host in door.hosts:
        with suppress(ImportError):
            importlib.import_module(host)
    along, found = loaded(), {"error": "", "text": ""}
    try:
        door.use(settings)
    except BaseException as error:  # noqa: BLE001 - whatever it raises is the finding
        found = {"error": type(error).__name__, "text": str(error), "trace": traceback.format_exc()}
    return found | {"beyond": sorted(loaded() - along)}


def forked(work):
    """Do it in a process of its own, in an empty folder."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        try:
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
                work()
                os.chdir("/")
        finally:
            os._exit(0)  # hosts leave threads
    os.waitpid(child, 0)


def tell(**found):
    os.write(1, f"\n@{json.dumps(found)}\n".encode())


def main(settings):
    warnings.simplefilter("ignore")
    hide(set(settings["gone"]))
    pipeline().close()  # what every door loads is loaded once, and is no host
    groups = {}
    for name in settings["doors"]:
        groups.setdefault(DOORS[name].hosts[:1], []).append(name)

    def group(first, names):
        for host in first:  # it is imported once for all of its doors
            with suppress(ImportError):
                importlib.import_module(host)
        for name in names:
            forked(lambda name=name: tell(door=name, **tried(DOORS[name], settings)))

    for first, names in groups.items():
        forked(lambda first=first, names=names: group(first, names))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
