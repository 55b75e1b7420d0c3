"""The caller's metadata are left alone: nothing is changed, and the provider gets what the plain host sends."""

from __future__ import annotations

import copy

import anthropic
import openai
import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai

ASK = [{"role": "user", "content": "hello"}]
OURS = {"llm_cost": {"user": "42", "tags": ["search"]}}


def _chat(sim, metadata, pipeline):
    client = openai.OpenAI(base_url=sim.openai_url, api_key="k")
    own = {} if pipeline is None else {"extra": OURS}
    client = client if pipeline is None else wrap_openai(client, pipeline)
    client.chat.completions.create(model="gpt-5-mini", messages=ASK, max_completion_tokens=20, metadata=metadata, **own)


def _responses(sim, metadata, pipeline):
    client = openai.OpenAI(base_url=sim.openai_url, api_key="k")
    own = {} if pipeline is None else {"extra": OURS}
    client = client if pipeline is None else wrap_openai(client, pipeline)
    client.responses.create(model="gpt-5-mini", input="hello", max_output_tokens=20, metadata=metadata, **own)


def _messages(sim, metadata, pipeline):
    client = anthropic.Anthropic(base_url=sim.anthropic_url, api_key="k")
    own = {} if pipeline is None else {"extra": OURS}
    client = client if pipeline is None else wrap_anthropic(client, pipeline)
    client.messages.create(model="claude-haiku-4-5", messages=ASK, max_tokens=20, metadata=metadata, **own)


@pytest.mark.parametrize(
    ("send", "metadata"),
    [(_chat, {"order": "7"}), (_responses, {"order": "7"}), (_messages, {"user_id": "u-1"})],
)
def test_what_the_sdk_is_given_is_sent_and_not_changed(sim, send, metadata):
    before, ours = copy.deepcopy(metadata), copy.deepcopy(OURS)
    send(sim, metadata, None)
    with CostPipeline(CostConfig()) as pipeline:
        send(sim, metadata, pipeline)
    plain, governed = (request.body for request in sim.requests)
    assert governed["metadata"] == plain["metadata"] == before
    assert "llm_cost" not in str(governed)
    assert (metadata, ours) == (before, OURS)


def test_what_langchain_is_given_reaches_the_callbacks_and_is_not_changed(sim):
    pytest.importorskip("langchain_openai", reason="needs the langchain extra")
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_openai import ChatOpenAI

    from llm_cost_middleware.integrations.langchain import guard

    class Seen(BaseCallbackHandler):
        metadata = None

        def on_chat_model_start(self, serialized, messages, *, metadata=None, **_):
            self.metadata = metadata

    given = {"metadata": {"order": "7", **OURS}}
    before = copy.deepcopy(given)
    with CostPipeline(CostConfig()) as pipeline:
        model = guard(ChatOpenAI(model="gpt-5-mini", base_url=sim.openai_url, api_key="k", max_tokens=20), pipeline)
        seen = Seen()
        model.invoke("hello", config={**given, "callbacks": [seen]})
    assert given == before
    assert seen.metadata is not None
    assert seen.metadata["order"] == "7"
    assert "order" not in sim.requests[-1].body.get("metadata", {})
