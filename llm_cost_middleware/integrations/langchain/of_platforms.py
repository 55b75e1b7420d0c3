"""Which chat models of platforms can be guarded."""

from __future__ import annotations

from typing import Any

from llm_cost_middleware.integrations.langchain.bedrock_messages import speaks_messages
from llm_cost_middleware.integrations.langchain.converse import speaks_converse
from llm_cost_middleware.integrations.langchain.vertex import speaks_vertex
from llm_cost_middleware.pipeline import CostPipeline


def is_of_platform(model: Any, pipeline: CostPipeline | None) -> bool:
    """Whether a chat model is one of a platform's that can be guarded, other than those of a provider's own classes."""
    return speaks_vertex(model) or speaks_converse(model, pipeline) or speaks_messages(model, pipeline)
