"""Requests to the proxy that fail in it before anything reaches a provider: free, and nothing stays set aside."""

from __future__ import annotations

import json

import httpx
import pytest

ASK = [{"role": "user", "content": "Count to forty."}]
BODIES = {
    "/v1/chat/completions": {"model": "gpt-5-mini", "messages": ASK, "max_completion_tokens": 40},
    "/v1/responses": {"model": "gpt-5-mini", "input": "Count to forty.", "max_output_tokens": 40},
    "/v1/messages": {"model": "claude-sonnet-4-6", "messages": ASK, "max_tokens": 40},
}
CAUSES = {
    "messages as numbers": {"messages": [1, 2], "input": [1, 2]},
    "a message without a role": {"messages": [{"content": "hi"}], "input": [{"content": "hi"}]},
    "a lone surrogate": {"messages": [{"role": "user", "content": "\ud800"}], "input": "\ud800"},
    "tools as text": {"tools": "x"},
    "stream options as text": {"stream": True, "stream_options": "x"},
    "a header that is none": {"extra_headers": {"x-a": {"b": 1}}},
    "a cap as text": {"max_tokens": "many", "max_completion_tokens": "many", "max_output_tokens": "many"},
    "a body of another kind": {"extra_body": ["x"]},
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("cause", CAUSES)
def test_what_never_reached_a_provider_is_free(path, cause, proxy):
    before, sent = proxy.since(), proxy.sim.request_count
    body = {name: value for name, value in CAUSES[cause].items() if name in (*BODIES[path], *_ANYWHERE)}
    httpx.post(
        proxy.url + path, content=json.dumps({**BODIES[path], **body}), timeout=120,
        headers={"authorization": "Bearer sk-local", "content-type": "application/json"},
    )  # fmt: skip
    after = proxy.since()  # waits until nothing is pending
    assert proxy.sim.request_count - sent <= 1
    if proxy.sim.request_count == sent:
        assert after == before
    else:
        assert after[0] - before[0] == after[1] - before[1]


_ANYWHERE = ("tools", "stream", "stream_options", "extra_headers", "extra_body")
