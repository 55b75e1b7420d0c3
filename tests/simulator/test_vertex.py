"""Vertex for Claude, seen through the anthropic SDK's own clients."""

import anthropic
import httpx2
import pytest

from llm_cost_middleware.simulator import Fault, Simulator, auto
from llm_cost_middleware.simulator.vertex.errors import STATUSES
from llm_cost_middleware.simulator.vertex.predict import BETAS

HAIKU = "claude-haiku-4-5@20251001"
SAID = [{"role": "user", "content": "hello there"}]
WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def client_of(sim: Simulator, region: str = "europe-west1", **more) -> anthropic.AnthropicVertex:
    return anthropic.AnthropicVertex(
        base_url=sim.vertex_url, region=region, project_id="acme", access_token="ya29.token", max_retries=0, **more
    )


def raw(sim: Simulator, body: dict, *, model: str = HAIKU, verb: str = "rawPredict", place: str = "global", **headers):
    url = f"{sim.vertex_url}/projects/acme/locations/{place}/publishers/anthropic/models/{model}:{verb}"
    return httpx2.post(url, json=body, headers={"authorization": "Bearer t"} | headers)


SENT = {"anthropic_version": "vertex-2023-10-16", "max_tokens": 50, "messages": SAID}


def test_a_message_is_answered_and_costs_a_tenth_more_outside_the_global_place(sim):
    for place in ("europe-west1", "eu", "us", "global"):
        with client_of(sim, place) as client:
            answer = client.messages.create(model=HAIKU, max_tokens=50, messages=SAID)
        assert answer.content[0].text == "You said: hello there"
        assert answer.id.startswith("msg_vrtx_01")
        assert answer.model == "claude-haiku-4-5-20251001"
        assert (answer.usage.service_tier, answer.usage.inference_geo) == (None, None)
    # 10 tokens at 1 dollar a million and 6 at 5; a tenth more at a place
    assert [line.cost_nanousd for line in sim.bill.lines] == [44_000, 44_000, 44_000, 40_000]
    assert {exchange.served_by for exchange in sim.requests} == {"vertex"}


def test_a_stream_is_anthropics_own_and_tools_are_called(sim):
    sim.responder = auto
    with client_of(sim) as client, client.messages.stream(
        model="claude-sonnet-4-6", max_tokens=80, messages=[{"role": "user", "content": "weather in 'Bern'"}],
        tools=[WEATHER], tool_choice={"type": "any"},
    ) as stream:  # fmt: skip
        answer = stream.get_final_message()
    assert answer.content[0].input == {"city": "Bern"}
    assert answer.usage.output_tokens > 0
    assert sim.requests[-1].path.endswith(
        "/locations/europe-west1/publishers/anthropic/models/claude-sonnet-4-6:streamRawPredict"
    )


async def test_the_asynchronous_client_and_counting(sim):
    async with anthropic.AsyncAnthropicVertex(
        base_url=sim.vertex_url, region="global", project_id="acme", access_token="t", max_retries=0
    ) as client:
        counted = await client.messages.count_tokens(model=HAIKU, messages=SAID)
        answer = await client.messages.create(model=HAIKU, max_tokens=50, messages=SAID)
    assert counted.input_tokens == answer.usage.input_tokens
    assert len(sim.bill.lines) == 1


def test_caches_are_kept_apart_by_project_and_place(sim):
    system = [{"type": "text", "text": "s" * 30_000, "cache_control": {"type": "ephemeral"}}]

    def ask(place):
        with client_of(sim, place) as client:
            return client.messages.create(model=HAIKU, max_tokens=5, messages=SAID, system=system).usage

    assert ask("eu").cache_creation_input_tokens > 4_096
    assert ask("eu").cache_read_input_tokens > 4_096
    assert ask("us").cache_read_input_tokens == 0


def test_the_names_of_models_are_vertexs(sim):
    for model in ("claude-haiku-4-5", HAIKU, "claude-opus-5-5@default", "claude-sonnet-5-5"):
        assert raw(sim, SENT, model=model).status_code == 200, model
    for model in ("claude-haiku-4-5-20251001", "claude-haiku-4-5@20240101", "gpt-5-mini", "claude-none"):
        refused = raw(sim, SENT, model=model)
        assert (refused.status_code, refused.json()["error"]["status"]) == (404, "NOT_FOUND"), model
    assert raw(sim, SENT, place="mars").status_code == 404


def test_what_vertex_does_not_take_is_refused(sim):
    def refused(body, **more):
        answer = raw(sim, body, **more)
        assert answer.status_code == 400, answer.text
        return answer.json()["error"]["message"]

    assert refused({**SENT, "model": HAIKU}) == "model: Extra inputs are not permitted"
    assert refused({key: SENT[key] for key in ("max_tokens", "messages")}) == "anthropic_version: Field required"
    assert "vertex-2023-10-16" in refused({**SENT, "anthropic_version": "bedrock-2023-05-31"})
    for field, value in (
        ("service_tier", "auto"), ("inference_geo", "us"), ("speed", "fast"), ("container", "c"), ("mcp_servers", []),
        ("output_format", {"type": "json_schema", "schema": {}}), ("user_profile_id", "u"),
    ):  # fmt: skip
        assert refused({**SENT, field: value}) == f"{field}: Extra inputs are not permitted"
    for tool in ("web_fetch_20250910", "code_execution_20250825", "web_search_20260209", "mcp_toolset"):
        assert tool in refused({**SENT, "tools": [{"type": tool, "name": "t"}]})
    picture = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    assert "url sources" in refused({**SENT, "messages": [{"role": "user", "content": [picture]}]})
    assert "files-api-2025-04-14" in refused(SENT, **{"anthropic-beta": "files-api-2025-04-14"})
    assert "fast-mode-2026-02-01" in refused({**SENT, "anthropic_beta": ["fast-mode-2026-02-01"]})
    assert raw(sim, {**SENT, "anthropic_beta": sorted(BETAS)}).status_code == 200
    assert len(sim.bill.lines) == 1  # refused requests cost nothing


def test_a_token_is_needed(sim):
    url = f"{sim.vertex_url}/projects/acme/locations/eu/publishers/anthropic/models/{HAIKU}"
    whole, streamed = httpx2.post(f"{url}:rawPredict", json=SENT), httpx2.post(f"{url}:streamRawPredict", json=SENT)
    assert (whole.status_code, whole.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
    assert streamed.json()[0]["error"]["status"] == "UNAUTHENTICATED"  # around streams in a list


@pytest.mark.parametrize("name", STATUSES)
def test_errors_are_googles_and_reach_the_sdk_by_their_status(sim, name):
    status, _ = STATUSES[name]
    for listed in (False, True):
        sim.script(Fault.google(name, listed=listed))
        with client_of(sim) as client, pytest.raises(anthropic.APIStatusError) as caught:
            client.messages.create(model=HAIKU, max_tokens=5, messages=SAID)
        assert caught.value.status_code == status
        assert name in str(caught.value.body)
    sim.script(Fault.status(status))
    assert raw(sim, SENT).status_code == status
    assert not sim.bill.lines


def test_the_models_own_errors_are_in_its_words(sim):
    sim.script(Fault.overloaded())
    overloaded = raw(sim, SENT)
    assert (overloaded.status_code, overloaded.json()["error"]["type"]) == (529, "overloaded_error")
    assert overloaded.json()["request_id"].startswith("req_vrtx_")
    too_many = raw(sim, {**SENT, "max_tokens": 10**6})
    assert (too_many.status_code, too_many.json()["error"]["type"]) == (400, "invalid_request_error")
