"""Answers of Azure as its documentation shows them, through the real SDK: each is priced at its deployment's place.

Sources: learn.microsoft.com, "Azure OpenAI in Azure AI Foundry Models": REST API reference (chat completions,
embeddings, responses), "Content filtering" (annotations, asynchronous filter), "Prompt caching", "Reasoning models"
(usage of each). Texts are shortened; counts, names and shapes are as there.
"""

from __future__ import annotations

import json

import openai
import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator import Fault

SAFE = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}
PROMPT = [{"prompt_index": 0, "content_filter_results": SAFE}]
ASK = [{"role": "user", "content": "What is the purpose of life?"}]


def completion(model, usage, **choice):
    """A chat completion with the annotations of the filter."""
    message = {"role": "assistant", "content": "To give life a meaning."}
    made = {"index": 0, "finish_reason": "stop", "logprobs": None, "message": message, "content_filter_results": SAFE}
    return {
        "id": "chatcmpl-ABC123", "object": "chat.completion", "created": 1679072642, "model": model, "usage": usage,
        "choices": [made | choice], "prompt_filter_results": PROMPT, "system_fingerprint": "fp_65792305e4",
    }  # fmt: skip


# deployment, the body, and what it costs in nano-dollars: tokens x dollars a million tokens x 1,000 x the place
CHATS = {
    "REST reference, chat completions": (
        "old", completion("gpt-35-turbo", {"prompt_tokens": 58, "completion_tokens": 68, "total_tokens": 126}),
        (58 * 500 + 68 * 1_500),
    ),
    "Prompt caching, usage with cached_tokens": (
        "o1-eu",
        completion(
            "o1-2024-12-17",
            {"completion_tokens": 1518, "prompt_tokens": 1566, "total_tokens": 3084,
             "completion_tokens_details": {"audio_tokens": None, "reasoning_tokens": 576},
             "prompt_tokens_details": {"audio_tokens": None, "cached_tokens": 1408}},
        ),
        ((158 * 15_000 + 1408 * 7_500 + 1518 * 60_000) * 11 // 10),
    ),
    "Reasoning models, usage with reasoning_tokens": (
        "mini",
        completion(
            "gpt-5-mini-2025-08-07",
            {"completion_tokens": 1843, "prompt_tokens": 20, "total_tokens": 1863,
             "completion_tokens_details": {"reasoning_tokens": 448, "accepted_prediction_tokens": 0,
                                           "audio_tokens": 0, "rejected_prediction_tokens": 0},
             "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0}},
        ),
        (20 * 250 + 1843 * 2_000),
    ),
    "Working with models, an upgrade behind a deployment: the answer names the model": (
        "o1-eu",
        completion("gpt-5-2025-08-07", {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}),
        ((20 * 1_250 + 10 * 10_000) * 11 // 10),
    ),
    "Content filtering, finish_reason content_filter": (
        "mini",
        completion("gpt-5-mini-2025-08-07", {"prompt_tokens": 40, "completion_tokens": 30, "total_tokens": 70},
                   finish_reason="content_filter", message={"role": "assistant"}),
        (40 * 250 + 30 * 2_000),
    ),
    "Content filtering, the filter itself could not be reached": (
        "mini",
        completion("gpt-5-mini-2025-08-07", {"prompt_tokens": 40, "completion_tokens": 30, "total_tokens": 70},
                   content_filter_result={"error": {"code": "content_filter_error", "message": "not available"}}),
        (40 * 250 + 30 * 2_000),
    ),
}  # fmt: skip
DEPLOYMENTS = {
    "old": "global/gpt-3.5-turbo",
    "o1-eu": {"model": "o1", "type": "DataZoneStandard", "region": "swedencentral"},
    "mini": {"model": "gpt-5-mini", "type": "GlobalStandard"},
    "luna-eu": {"model": "gpt-6-luna", "type": "DataZoneStandard", "region": "swedencentral"},
    "vectors": {"model": "text-embedding-ada-002", "region": "eastus"},
    "gpt-4o": {"model": "gpt-4o", "type": "GlobalStandard"},
}


@pytest.fixture
def pipeline():
    made = CostPipeline(CostConfig(
        budgets=[{"scope": "provider:azure", "limit": "50"}], platforms={"azure": {"deployments": DEPLOYMENTS}},
    ))  # fmt: skip
    yield made
    made.close()


@pytest.fixture
def client(sim, pipeline):
    root = sim.openai_url.removesuffix("/v1")
    with openai.AzureOpenAI(azure_endpoint=root, api_key="k", api_version="2025-04-01-preview") as plain:
        yield wrap_openai(plain, pipeline)


def booked(pipeline):
    (record,) = pipeline.records()
    assert record.status == "exact"
    balance = pipeline.ledger.balance("provider:azure")
    assert balance.pending == 0
    return balance.settled_nanousd


@pytest.mark.parametrize("source", list(CHATS))
def test_a_chat_is_priced_by_its_usage_at_its_place(client, pipeline, sim, source):
    deployment, body, cost = CHATS[source]
    sim.script(Fault.status(200, body=body))
    client.chat.completions.create(model=deployment, messages=ASK, max_completion_tokens=2_000)
    assert booked(pipeline) == cost


def events(*chunks):
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return Fault.status(200, body="".join([*lines, "data: [DONE]\n\n"]), headers={"content-type": "text/event-stream"})


def chunk(*choices, **more):
    head = {"id": "chatcmpl-7rCNsVeZy0PGnX3H6jK8STps5nZUY", "object": "chat.completion.chunk", "created": 1692913344}
    return {**head, "model": "gpt-6-luna", "choices": list(choices), **more}


def test_the_chunks_of_an_asynchronous_filter_change_nothing_of_the_bill(client, pipeline, sim):
    """ "Content filtering", asynchronous filter: chunks without choices, and choices that have offsets and no delta."""
    offsets = {"check_offset": 44, "start_offset": 44, "end_offset": 198}
    sim.script(events(
        {"id": "", "object": "", "created": 0, "model": "", "prompt_filter_results": PROMPT, "choices": [],
         "usage": None},
        chunk({"index": 0, "finish_reason": None, "delta": {"role": "assistant"}}, usage=None),
        chunk({"index": 0, "finish_reason": None, "delta": {"content": "Color is"}}, usage=None),
        {"id": "", "object": "", "created": 0, "model": "", "usage": None,
         "choices": [{"index": 0, "finish_reason": None, "content_filter_results": SAFE,
                      "content_filter_offsets": offsets}]},
        chunk({"index": 0, "finish_reason": "stop", "delta": {}}, usage=None),
        {"id": "", "object": "", "created": 0, "model": "", "usage": None,
         "choices": [{"index": 0, "finish_reason": None, "content_filter_results": SAFE,
                      "content_filter_offsets": offsets | {"end_offset": 506}}]},
        chunk(usage={"prompt_tokens": 12, "completion_tokens": 9, "total_tokens": 21}),
    ))  # fmt: skip
    asked = {"model": "luna-eu", "messages": ASK, "max_completion_tokens": 100}
    assert len(list(client.chat.completions.create(**asked, stream=True))) == 6  # our own of the usage is kept back
    assert booked(pipeline) == (12 * 100 + 9 * 500) * 12 // 10


def test_a_response_is_priced_by_its_usage(client, pipeline, sim):
    """ "Use the Azure OpenAI Responses API", the answer that it begins with."""
    text = {"annotations": [], "text": "Great! How can I help you?", "type": "output_text"}
    sim.script(Fault.status(200, body={
        "id": "resp_67cb32528d6881909eb2859a55e18a85", "created_at": 1741369938.0, "error": None,
        "incomplete_details": None, "instructions": None, "metadata": {}, "model": "gpt-4o-2024-08-06",
        "object": "response", "parallel_tool_calls": None, "temperature": 1.0, "tool_choice": None, "tools": [],
        "output": [{"id": "msg_67cb3252cfac8190865744873aada798", "content": [text], "role": "assistant",
                    "status": None, "type": "message"}],
        "top_p": 1.0, "max_output_tokens": None, "previous_response_id": None, "reasoning": None,
        "status": "completed", "text": None, "truncation": None, "user": None, "reasoning_effort": None,
        "usage": {"input_tokens": 20, "output_tokens": 11, "output_tokens_details": {"reasoning_tokens": 0},
                  "total_tokens": 31},
    }))  # fmt: skip
    client.responses.create(model="gpt-4o", input="This is a test.", max_output_tokens=50)
    assert booked(pipeline) == 20 * 2_500 + 11 * 10_000


@pytest.mark.parametrize("named", ["ada", "text-embedding-ada-002", "text-embedding-ada-002-v2"])
def test_embeddings_are_priced_whatever_the_answer_calls_the_model(client, pipeline, sim, named):
    """REST reference, embeddings; ``ada`` and ``-v2`` as older versions of the API answer."""
    data = [{"object": "embedding", "index": 0, "embedding": [0.018990106880664825, -0.0073809814639389515]}]
    usage = {"prompt_tokens": 400, "total_tokens": 400}
    sim.script(Fault.status(200, body={"object": "list", "data": data, "model": named, "usage": usage}))
    client.embeddings.create(model="vectors", input="this is a test")
    assert booked(pipeline) == 400 * 110
