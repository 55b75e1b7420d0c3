"""A call and its target as their provider knows them: a platform's models take what their provider's do."""

from __future__ import annotations

from llm_cost_middleware.capabilities.arms import Arm
from llm_cost_middleware.platform import PLATFORMS, served_model
from llm_cost_middleware.request import CallRequest, ModelRef


def as_provider(request: CallRequest, target: ModelRef) -> tuple[CallRequest, ModelRef]:
    """Both without a platform; unchanged where neither names one."""
    if target.provider not in PLATFORMS and request.provider not in PLATFORMS:
        return request, target
    plain = ModelRef(*served_model(*target)[:2])
    provider, model, _ = served_model(request.provider, request.model)
    target = Arm(*plain, target.parameters) if target.parameters else plain
    return request._replace(provider=provider, model=model), target
