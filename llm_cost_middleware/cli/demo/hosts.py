"""Hosts of the demo: an ordinary LangChain chain and an ordinary LiteLLM router, each governed by one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from llm_cost_middleware.extras import needed_for
from llm_cost_middleware.pipeline import CostPipeline

SendCall = Callable[[list[dict[str, Any]], dict[str, Any]], None]
"""Function that sends the messages of one call, with the application's cost attributes."""


def chain_host(pipeline: CostPipeline, tools: list[dict[str, Any]]) -> SendCall:
    """Return a function that calls ``prompt | ChatAnthropic``, instrumented."""
    with needed_for("the demo's LangChain chain", extra="demo"):
        from langchain_anthropic import ChatAnthropic
    from langchain_core.messages import convert_to_messages
    from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder

    from llm_cost_middleware.integrations.langchain import instrument

    provider = pipeline.config.providers["anthropic"]
    options: dict[str, Any] = {"model": "claude-sonnet-4-6", "api_key": os.environ.get(provider.api_key_env, "")}
    if provider.base_url:
        options["base_url"] = provider.base_url
    model = ChatAnthropic(**options)
    chain = ChatPromptTemplate.from_messages([MessagesPlaceholder("history")]) | model.bind_tools(tools)

    chain = instrument(chain, pipeline)  # the one line

    def send(messages: list[dict[str, Any]], attributes: dict[str, Any]) -> None:
        chain.invoke({"history": convert_to_messages(messages)}, config={"metadata": {"llm_cost": attributes}})

    return send


def router_host(pipeline: CostPipeline, tools: list[dict[str, Any]]) -> SendCall:
    """Return a function that calls a cost-aware ``litellm.Router`` over the tiers of both providers."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # importing litellm must not fetch anything
    with needed_for("the demo's router"):
        import litellm

    from llm_cost_middleware.integrations.litellm import CostAwareRouter, router_config

    litellm.suppress_debug_info = True
    model_list = router_config(pipeline.config)["model_list"]
    router = CostAwareRouter(model_list, pipeline=pipeline)  # the one line, in place of litellm.Router(model_list)

    def send(messages: list[dict[str, Any]], attributes: dict[str, Any]) -> None:
        router.completion("smart", messages, tools=tools, metadata={"llm_cost": attributes})

    return send
