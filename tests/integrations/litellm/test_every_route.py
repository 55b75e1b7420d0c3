"""Every route of LiteLLM's proxy, by every kind of name: what leaves for a provider has a row, or does not leave.

The routes are those of the proxy's own OpenAPI document; a tag that ``proxy_surface`` does not know fails the test.
Requests are counted where they end: at the simulator, and, of other providers, at an HTTP proxy on loopback.
"""

from __future__ import annotations

import httpx
import pytest
from outward import Outward
from proxy_process import Proxy
from proxy_surface import FREE, body_for, routes_of, url_of

from llm_cost_middleware.simulator import Simulator, fill

VENDORS = ("AZURE", "AZURE_AI", "BEDROCK", "COHERE", "CO", "CURSOR", "FAL", "FAL_AI", "GEMINI", "GOOGLE", "MISTRAL",
           "NVIDIA_NIM", "OPENROUTER", "PERPLEXITY", "ASSEMBLYAI", "TYPESAFE", "VLLM", "WATSONX")  # fmt: skip
NAMES = {
    "group": "gpt-5-mini",
    "alias": "short",
    "id": "dep-1",
    "model": "openai/gpt-5-mini",
    "wildcard": "any/gpt-5-nano",
    "public name of a team": "ours",
    "other platform": "elsewhere",
    "routed": "smart",
    "several": "gpt-5-mini,gpt-5.1",
    "several with none": "gpt-5-mini,",
    "unknown": "nobody",
}
GOVERNED = ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/queue/chat/completions",
            "/v1beta/models/{model_name}:generateContent", "/v1/completions", "/v1/embeddings")  # fmt: skip
"""Asked by every kind of name, in the short form, too."""


def more_names(sim):
    def adjust(config):
        params = {"model": "openai/gpt-5-mini", "api_base": sim.openai_url, "api_key": "k"}
        config["model_list"] += [
            {"model_name": "by-id", "litellm_params": params, "model_info": {"id": "dep-1"}},
            {"model_name": "any/*", "litellm_params": {**params, "model": "openai/*"}},
            {"model_name": "elsewhere", "litellm_params": {**params, "model": "together_ai/x"}},
            {
                "model_name": "internal",
                "litellm_params": params,
                "model_info": {"id": "team-1", "team_id": "blue", "team_public_model_name": "ours"},
            },
        ]
        config["router_settings"] |= {"model_group_alias": {"short": "gpt-5-mini"}, "disable_cooldowns": True}

    return adjust


class Watched:
    """A running proxy, and what left it."""

    def __init__(self, proxy, sim, outward, mode):
        self.proxy, self.sim, self.outward, self.mode = proxy, sim, outward, mode
        self.http = httpx.Client(
            base_url=proxy.url, timeout=120, trust_env=False, headers={"authorization": "Bearer sk-alice"}
        )

    def ask(self, method, path, model, **more):
        """One request: its status, how many left for a provider, and the rows that were opened for them."""
        sent, rows = self.sent, len(self.proxy.rows())
        body = None if method in {"get", "head", "options", "delete"} else body_for(path, model) | more
        try:
            status = self.http.request(method, url_of(path, model), json=body).status_code
        except httpx.HTTPError as error:
            status = type(error).__name__
        opened = [row for row in self.proxy.rows()[rows:] if row.kind in {"reserve", "book"}]
        return status, self.sent - sent, opened

    @property
    def sent(self):
        """Requests so far, wherever they went; what LiteLLM reads of its own in the net is none."""
        own = ("githubusercontent.com", "api.github.com", "docs.litellm.ai", "blog.")
        return self.sim.request_count + sum(not any(name in line for name in own) for line in self.outward.asked)


@pytest.fixture(scope="module", params=["warn", "deny"])
def watched(tmp_path_factory, request):
    pytest.importorskip("fastapi", reason="needs the proxy extra, which has no LiteLLM >= 1.110 here")
    with Outward() as outward, Simulator(responder=fill) as sim:
        env = {
            "LLM_COST_ON_UNGOVERNED": request.param,
            "OPENAI_API_BASE": sim.openai_url,
            "OPENAI_BASE_URL": sim.openai_url,
            "ANTHROPIC_API_BASE": sim.anthropic_url,
            "ANTHROPIC_BASE_URL": sim.anthropic_url,
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "k",
            "AWS_REGION_NAME": "us-east-1",
            **{f"{name}_API_KEY": "k" for name in VENDORS},
            **outward.env,
        }
        running = Proxy(tmp_path_factory.mktemp("routes"), sim, adjust=more_names(sim), env=env)
        try:
            running.start(workers=1)
            yield Watched(running, sim, outward, request.param)
        finally:
            running.stop()


def wrong(watched, method, path, model, **more):
    """What is wrong with one request; ``None`` where nothing is."""
    status, sent, opened = watched.ask(method, path, model, **more)
    if not sent or FREE.search(f"{method} {path}"):
        return None
    if not opened:
        return f"{method} {path} {model!r}: HTTP {status}, {sent} sent, no row"
    if watched.mode == "deny" and any(row.kind != "reserve" for row in opened):
        return f"{method} {path} {model!r}: HTTP {status}, {sent} sent without a reservation"
    return None


def test_every_route_is_known_and_sends_nothing_without_a_row(watched, request):
    routes, unknown = routes_of(watched.http.get("/openapi.json").json())
    assert unknown == set(), "look at them, and add them to proxy_surface"
    assert len(routes) > 150
    names = list(NAMES.values())
    every = request.config.getoption("--soak")
    # each route by one name, in turn; the long form asks each by all
    asked = [
        (method, path, name)
        for index, (method, path) in enumerate(routes)
        for name in (names if every else [names[index % len(names)]])
    ]
    begun = watched.sent
    assert [found for one in asked if (found := wrong(watched, *one)) is not None] == []
    assert watched.sent - begun > 20


@pytest.mark.parametrize("path", GOVERNED)
def test_every_kind_of_name_is_held_noted_or_refused(path, watched):
    begun = watched.sent
    found = [wrong(watched, "post", path, name) for name in NAMES.values()]
    if "generate" not in path and "completions" in path:
        found += [wrong(watched, "post", path, name, stream=True) for name in ("gpt-5-mini", "dep-1")]
        found.append(wrong(watched, "post", path, "gpt-5-mini,gpt-5.1", fastest_response=True))
    assert [one for one in found if one is not None] == []
    if watched.mode == "warn":
        assert watched.sent > begun
    watched.proxy.spent()  # waits until nothing is pending


def test_nothing_of_it_is_left_pending(watched):
    spent, bill = watched.proxy.spent(), watched.sim.bill.total_nanousd
    assert bill > 0
    # with "warn", what was let pass may have no price, and says so in its row
    assert spent >= bill or watched.mode == "warn"


def test_no_name_leads_past_an_empty_budget(watched):
    billed = watched.sim.bill.total_nanousd
    with httpx.Client(base_url=watched.proxy.url, timeout=120, trust_env=False) as http:
        for path in GOVERNED[:5]:
            for name in NAMES.values():
                body = body_for(path, name)
                answer = http.post(url_of(path, name), json=body, headers={"authorization": "Bearer sk-poor"})
                assert watched.sim.bill.total_nanousd == billed, (path, name, answer.text)
    assert watched.proxy.spent("user:poor") == 0
