"""Generic verbs of a governed client: whatever is sent by hand is governed, reported, or free for a reason."""

from __future__ import annotations

import asyncio
import contextlib
import json

import anthropic
import openai
import pytest
from anthropic._models import FinalRequestOptions as ClaudeOptions
from anthropic.types import Message
from openai._models import FinalRequestOptions
from openai.types.chat import ChatCompletion

from llm_cost_middleware.errors import BudgetExceededError, NoEligibleModelError, UnsupportedRequestError
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.pipeline import CostPipeline

CHAT = {"model": "gpt-5-mini", "max_completion_tokens": 40, "messages": [{"role": "user", "content": "Hello"}]}
CLAUDE = {"model": "claude-haiku-4-5", "max_tokens": 40, "messages": [{"role": "user", "content": "Hello"}]}

COUNTED = {name: CLAUDE[name] for name in ("model", "messages")}


def by_request(client, path, body, **more):
    return client.request(object, FinalRequestOptions(method="post", url=path, json_data=body), **more)


WAYS = {
    "request": by_request,
    "request, constructed": lambda client, path, body: client.request(
        cast_to=object, options=FinalRequestOptions.construct(method="POST", url=path, json_data=body)
    ),
    "request, url": lambda client, path, body: by_request(client, str(client.base_url).rstrip("/") + path, body),
    "list": lambda client, path, body: client.get_api_list(
        path, model=object, page=openai.pagination.SyncPage[object], body=body, method="post"
    ),
    "post, laid over": lambda client, path, body: client.post(path, cast_to=object, options={"extra_json": body}),
    "post, content": lambda client, path, body: client.post(path, cast_to=object, content=json.dumps(body).encode()),
    "request, content": lambda client, path, body: client.request(
        object, FinalRequestOptions.construct(method="post", url=path, content=json.dumps(body))
    ),
    "copied": lambda client, path, body: by_request(client.copy(timeout=30).with_options(max_retries=0), path, body),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_chat_that_is_sent_by_hand_is_governed(harness, clients, way):
    client = harness.wrap(clients)["openai"]
    WAYS[way](client, "/chat/completions", dict(CHAT))
    assert harness.sim.request_count == len(harness.pipeline.records()) == 1
    harness.agree()


@pytest.mark.parametrize("way", WAYS)
def test_what_does_not_fit_is_not_sent_by_hand_either(make_harness, clients, way):
    harness = make_harness(budgets=[{"scope": "global", "limit": "0.0000001"}])
    with pytest.raises(BudgetExceededError):
        WAYS[way](harness.wrap(clients)["openai"], "/chat/completions", dict(CHAT))
    assert harness.sim.request_count == 0


def test_messages_of_the_other_sdk_and_of_asynchronous_clients(harness, clients):
    claude = harness.wrap(clients)["anthropic"]
    options = {"method": "post", "url": "/v1/messages", "json_data": CLAUDE}
    claude.request(anthropic.types.Message, ClaudeOptions(**options))
    kind = anthropic.Stream[anthropic.types.RawMessageStreamEvent]
    stream = claude.request(
        anthropic.types.Message,
        ClaudeOptions(**{**options, "json_data": {**CLAUDE, "stream": True}}),
        stream=True, stream_cls=kind,
    )  # fmt: skip
    assert len(list(stream)) > 2

    async def later():
        async with anthropic.AsyncAnthropic(base_url=harness.sim.anthropic_url, api_key="k") as plain:
            client = wrap_anthropic(plain, harness.pipeline)
            await client.request(anthropic.types.Message, ClaudeOptions(**options))
        async with openai.AsyncOpenAI(base_url=harness.sim.openai_url, api_key="k") as plain:
            await by_request(wrap_openai(plain, harness.pipeline), "/chat/completions", CHAT)

    asyncio.run(later())
    assert harness.sim.request_count == len(harness.pipeline.records()) == 4
    harness.agree()


@pytest.mark.parametrize("verb", ["post", "PUT", "patch", " Post ", "brew"])
def test_an_unknown_way_to_spend_is_refused_by_every_verb(make_harness, clients, verb):
    harness = make_harness(on_ungoverned="deny")
    client = harness.wrap(clients)["openai"]
    for path in ("/oracles", "/images/generations", "/embeddings/more"):
        with pytest.raises(UnsupportedRequestError, match=path):
            client.request(object, FinalRequestOptions.construct(method=verb, url=path, json_data={}))
    for put in (client.put, client.patch):
        with pytest.raises(UnsupportedRequestError, match="/oracles"):
            put("/oracles", cast_to=object, body={})
    with pytest.raises(UnsupportedRequestError, match="cannot be read"):
        client.post("/chat/completions", cast_to=object, content=iter([b"{}"]))
    assert harness.sim.request_count == 0


def test_what_shows_or_ends_something_passes(make_harness, clients):
    harness = make_harness(on_ungoverned="deny")
    client = harness.wrap(clients)["openai"]
    for ask in (
        lambda: client.delete("/oracles/1", cast_to=object),
        lambda: client.get("/oracles/1", cast_to=object),
        lambda: list(client.models.list()),
        lambda: client.request(object, FinalRequestOptions(method="get", url="/oracles")),
    ):
        before = harness.sim.request_count
        with contextlib.suppress(openai.APIStatusError):  # the simulator knows none of them
            ask()
        assert harness.sim.request_count == before + 1


def test_a_request_of_an_answer_in_the_background_books_it(harness, clients):
    client = harness.wrap(clients)["openai"]
    made = client.responses.create(model="gpt-5-mini", input="Hi", background=True, max_output_tokens=30)
    done = client.request(
        openai.types.responses.Response, FinalRequestOptions(method="get", url=f"/responses/{made.id}")
    )
    while done.status in {"queued", "in_progress"}:
        done = client.request(type(done), FinalRequestOptions(method="get", url=f"/responses/{made.id}"))
    harness.agree()


def test_a_key_that_is_changed_afterwards_is_sent(harness, clients):
    client = harness.wrap(clients)["openai"]
    client.api_key = "another"
    client.chat.completions.create(**CHAT)
    assert harness.sim.requests[-1].headers["authorization"] == "Bearer another"


# --- regions ----------------------------------------------------------------------------------------------------------

OUTSIDE = {
    "count_tokens": lambda gpt, claude: claude.messages.count_tokens(**COUNTED),
    "moderations": lambda gpt, claude: gpt.moderations.create(input="hello"),
    "images": lambda gpt, claude: gpt.images.generate(model="gpt-image-1", prompt="a cat"),
    "legacy completions": lambda gpt, claude: gpt.completions.create(model="gpt-3.5-turbo-instruct", prompt="hi"),
    "legacy complete": lambda gpt, claude: claude.post("/v1/complete", cast_to=object, body={"model": "x"}),
    "speech": lambda gpt, claude: gpt.audio.speech.create(model="tts-1", voice="alloy", input="hi"),
    "transcription": lambda gpt, claude: gpt.audio.transcriptions.create(model="whisper-1", file=("a", b"R")),
    "files": lambda gpt, claude: gpt.files.create(file=("a.jsonl", b"{}"), purpose="batch"),
    "conversations": lambda gpt, claude: gpt.conversations.create(items=[]),
    "embeddings": lambda gpt, claude: gpt.embeddings.create(model="text-embedding-3-small", input="x"),
    "chat": lambda gpt, claude: gpt.chat.completions.create(**CHAT),
    "chat, by hand": lambda gpt, claude: by_request(gpt, "/chat/completions", CHAT),
    "beta": lambda gpt, claude: claude.beta.messages.create(**CLAUDE),
    "batch": lambda gpt, claude: claude.messages.batches.create(requests=[{"custom_id": "a", "params": CLAUDE}]),
    "socket": lambda gpt, claude: gpt.realtime.connect(model="gpt-realtime"),
    "put": lambda gpt, claude: gpt.put("/oracles", cast_to=object, body={}),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("choice", ["warn", "allow"])
def test_nothing_leaves_the_regions_whatever_the_method(make_harness, clients, name, choice):
    harness = make_harness(routing={"regions": ["eu"]}, on_ungoverned=choice)
    wrapped = harness.wrap(clients)
    with pytest.raises(NoEligibleModelError, match="eu"):
        OUTSIDE[name](wrapped["openai"], wrapped["anthropic"])
    assert harness.sim.request_count == 0


@pytest.mark.parametrize(
    "settings", [{"mode": "observe"}, {"routing": {"regions": ["global"]}}], ids=["observe", "global"]
)
def test_what_observes_or_is_inside_passes(make_harness, clients, settings):
    harness = make_harness(**{"routing": {"regions": ["eu"]}, **settings})
    claude = harness.wrap(clients)["anthropic"]
    assert claude.messages.count_tokens(**COUNTED).input_tokens


def test_a_deployment_inside_is_served_and_one_outside_is_not(sim):
    """By the place of the deployment, also for methods that are not governed and clients that fix one."""
    deployments = {
        "eu--gpt-5-mini": {"model": "gpt-5-mini", "region": "swedencentral"},
        "gpt-5-mini": "global/gpt-5-mini",
    }
    config = {
        "budgets": [{"scope": "global", "limit": "1"}], "routing": {"regions": ["eu"]},
        "platforms": {"azure": {"deployments": deployments}},
    }  # fmt: skip
    root = sim.openai_url.removesuffix("/v1")
    with CostPipeline(config) as pipeline:
        plain = openai.AzureOpenAI(azure_endpoint=root, api_key="k", api_version="2024-10-21")
        client = wrap_openai(plain, pipeline)
        client.chat.completions.create(**{**CHAT, "model": "eu--gpt-5-mini"})
        with pytest.raises(openai.NotFoundError):  # it left: the simulator has no images
            client.images.generate(model="eu--gpt-5-mini", prompt="a cat")
        before = sim.request_count
        for model in ("gpt-5-mini", "unknown"):
            with pytest.raises(NoEligibleModelError):
                client.images.generate(model=model, prompt="a cat")
        with pytest.raises(NoEligibleModelError):
            client.moderations.create(input="x")
        assert sim.request_count == before
        plain.close()
        for path in ("/deployments/gpt-5-mini/chat/completions", f"{root}/openai/deployments/gpt-5-mini/embeddings"):
            with pytest.raises(NoEligibleModelError):  # the path decides, whatever the body names
                client.post(path, cast_to=object, body={**CHAT, "model": "eu--gpt-5-mini"})
        assert sim.request_count == before


ELSEWHERE = ("https://api.openai.com/v1{}", "http://127.0.0.1:9/v1{}")


@pytest.mark.parametrize("path", ["/chat/completions", "/moderations", "/batches", "/videos"])
@pytest.mark.parametrize("address", ELSEWHERE)
def test_an_address_of_another_host_is_no_request_of_this_client(make_harness, clients, address, path):
    """Who answers there, at which price and where, is not known."""
    for settings in ({"routing": {"regions": ["global"]}}, {"on_ungoverned": "deny"}):
        harness = make_harness(**settings)
        client, before = harness.wrap(clients)["openai"], harness.sim.request_count
        if path == "/moderations" and "on_ungoverned" in settings:
            continue  # costs nothing
        with pytest.raises((NoEligibleModelError, UnsupportedRequestError)):
            client.post(address.format(path), cast_to=object, body=CHAT)
        assert harness.sim.request_count == before


def test_the_address_of_its_own_host_is(harness, clients):
    client = harness.wrap(clients)["openai"]
    client.post(f"{harness.sim.openai_url}/chat/completions", cast_to=ChatCompletion, body=CHAT)
    harness.agree()


@pytest.mark.parametrize("form", ["//x/{}", "//x//{}", "http:///{}", "https:/{}", "https:{}", "HTTP:{}", "./{}"])
def test_what_the_http_client_takes_for_a_path_of_its_own_host_is_one(harness, clients, form):
    """``httpx.URL.is_relative_url``: an address has a scheme and a host."""
    wrapped = harness.wrap(clients)
    wrapped["openai"].post(form.format("chat/completions"), cast_to=ChatCompletion, body=CHAT)
    wrapped["anthropic"].post(form.format("v1/messages"), cast_to=Message, body=CLAUDE)
    assert harness.sim.request_count == 2
    harness.agree()
