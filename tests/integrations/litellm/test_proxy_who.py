"""The proxy: keys that name nobody are refused, and a scope that is paused beside it answers 403 at once."""

from __future__ import annotations

import httpx
import pytest
from proxy_process import Providers, Proxy

from llm_cost_middleware.simulator import fill

pytest.importorskip("fastapi")
pytestmark = pytest.mark.litellm
RULE = """
[attribution]
require = ["team", "tag"]
names = {team = ["blue"], tag = ["owned", "tight"]}
"""
ASK = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 20}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    with Providers(responder=fill) as sim:
        proxy = Proxy(tmp_path_factory.mktemp("who"), sim, cost=RULE)
        proxy.start(1)
        yield proxy
        proxy.stop()


def post(proxy, body, name):
    headers = {"Authorization": f"Bearer sk-{name}"}
    return httpx.post(f"{proxy.url}/v1/chat/completions", json=body, headers=headers, timeout=60)


def test_who_is_not_named_is_refused_and_who_is_paused_too(proxy):
    proxy.sim.reset()
    answer = post(proxy, ASK, "alice")
    assert (answer.status_code, proxy.sim.request_count) == (400, 0)
    assert "tag" in answer.json()["error"]["message"]
    odd = {**ASK, "metadata": {"tags": ["ownd"]}}
    answer = post(proxy, odd, "alice")
    assert (answer.status_code, proxy.sim.request_count) == (400, 0)
    assert "did you mean 'owned'" in answer.json()["error"]["message"]
    assert post(proxy, ASK, "tagged").status_code == 200
    assert proxy.sim.request_count == 1
    proxy.ledger.pause("team:blue", reason="incident 7")
    answer = post(proxy, ASK, "tagged")
    assert (answer.status_code, proxy.sim.request_count) == (403, 1)
    assert "incident 7" in answer.json()["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"
    proxy.ledger.resume("team:blue")
    assert post(proxy, ASK, "tagged").status_code == 200


@pytest.mark.parametrize("path", ["chat/completions", "embeddings", "images/generations", "audio/speech"])
def test_a_pause_of_everything_stops_what_is_not_governed_too(proxy, path):
    body = {**ASK, "input": "hi", "prompt": "a cat", "voice": "alloy"}
    if path != "chat/completions":
        body = {name: body[name] for name in ("model", "input", "prompt", "voice")}
    headers = {"Authorization": "Bearer sk-tagged"}
    proxy.sim.reset()
    proxy.ledger.pause("global", reason="incident 8")
    try:
        answer = httpx.post(f"{proxy.url}/v1/{path}", json=body, headers=headers, timeout=60)
    finally:
        proxy.ledger.resume("global")
    assert (answer.status_code in {400, 403}, proxy.sim.request_count) == (True, 0), answer.text
    assert "incident 8" in answer.text
