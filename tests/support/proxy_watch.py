"""A running proxy of LiteLLM with every kind of name, and what left it for whom."""

from __future__ import annotations

from contextlib import contextmanager

import httpx
from outward import Outward
from proxy_process import Providers, Proxy
from proxy_surface import AGENT, body_for, url_of

from llm_cost_middleware.simulator import fill

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


def more_names(sim, outside):
    def adjust(config):
        params = {"model": "openai/gpt-5-mini", "api_base": sim.openai_url, "api_key": "k"}
        config["model_list"] += [
            {"model_name": "by-id", "litellm_params": params, "model_info": {"id": "dep-1"}},
            {"model_name": "any/*", "litellm_params": {**params, "model": "openai/*"}},
            {"model_name": "elsewhere", "litellm_params": {**params, "model": "together_ai/x"}},
            {"model_name": "live", "litellm_params": {**params, "model": "openai/gpt-realtime", "api_base": outside}},
            {
                "model_name": "internal",
                "litellm_params": params,
                "model_info": {"id": "team-1", "team_id": "blue", "team_public_model_name": "ours"},
            },
        ]
        config["agents"] = [
            {
                "agent_name": AGENT,
                "agent_card_params": {
                    "name": AGENT, "description": "x", "version": "1", "protocolVersion": "0.3.0", "url": outside,
                    "skills": [], "capabilities": {}, "defaultInputModes": ["text"], "defaultOutputModes": ["text"],
                },
                "litellm_params": {
                    "custom_llm_provider": "openai", "model": "gpt-5-mini", "api_base": sim.openai_url, "api_key": "k",
                },
            }
        ]  # fmt: skip
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
        """Requests so far, wherever they went; what LiteLLM and Google's SDK read of their own, also lists, is none."""
        own = ("githubusercontent.com", "api.github.com", "docs.litellm.ai", "blog.", "/models ", "//169.254.169.254/ ")
        return self.sim.request_count + sum(not any(name in line for name in own) for line in self.outward.asked)


@contextmanager
def watched_proxy(folder, mode):
    """A proxy with ``on_ungoverned = mode``, whose requests to the outer world end here."""
    with Outward() as outward, Providers(responder=fill) as sim:
        env = {
            "LLM_COST_ON_UNGOVERNED": mode,
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
        running = Proxy(folder, sim, adjust=more_names(sim, outward.url), env=env)
        try:
            running.start(workers=1)
            yield Watched(running, sim, outward, mode)
        finally:
            running.stop()
