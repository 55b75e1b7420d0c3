"""A governed stream that has ended stays ended, whatever the host's own would do next; what it read says the same."""

from __future__ import annotations

import pytest
from openai.types.chat import ChatCompletionChunk

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallRequest, Message, Part
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

REQUEST = CallRequest("openai", "gpt-5-mini", (Message("user", (Part("text", "hi"),)),), endpoint="chat.completions")
BASE = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-5-mini"}


class Endless:
    """A host's stream that breaks at its third chunk, and would go on."""

    def __init__(self):
        self.read = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.read += 1
        if self.read == 3:
            raise ConnectionError("cut")
        return self.read

    def __aiter__(self):
        return self

    async def __anext__(self):
        return self.__next__()

    def reading(self):
        return UsageReport(items=(BilledItem(TokenUsage(uncached_input=5)),), model="gpt-5-mini")

    def close(self):
        pass

    async def aclose(self):
        pass


@pytest.fixture
def pipeline(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": "9"}])) as made:
        yield made


def test_a_stream_that_broke_yields_nothing_more(pipeline):
    stream = pipeline.run(REQUEST, lambda _: Endless())
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(ConnectionError):
        next(stream)
    assert list(stream) == []
    assert len(pipeline.records()) == 1


@pytest.mark.parametrize("left", ["broken", "closed"])
async def test_an_asynchronous_stream_that_ended_yields_nothing_more(pipeline, left):
    async def send(_):
        return Endless()

    stream = await pipeline.arun(REQUEST, send)
    assert await anext(stream) == 1
    if left == "closed":
        await stream.aclose()
    else:
        assert await anext(stream) == 2
        with pytest.raises(ConnectionError):
            await anext(stream)
    assert [chunk async for chunk in stream] == []
    assert len(pipeline.records()) == 1


@pytest.mark.parametrize("as_objects", [True, False])
def test_chunks_say_the_same_as_objects_and_as_mappings(as_objects):
    chunks = [
        *(BASE | {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]} for _ in range(3)),
        BASE | {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}], "service_tier": "flex"},
        BASE | {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}},
    ]
    reader = get_provider("openai").new_stream_reader()
    for chunk in chunks:
        reader.feed(ChatCompletionChunk.model_validate(chunk) if as_objects else chunk)
    found = reader.reading()
    assert (found.usage.input_tokens, found.usage.output_tokens, found.finish_reason) == (7, 3, "length")
    assert (found.service_tier, found.model, found.response_id, found.complete) == ("flex", "gpt-5-mini", "c1", True)
