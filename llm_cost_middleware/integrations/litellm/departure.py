"""The moment at which LiteLLM hands a request over to be sent: whether it came, and for which model.

LiteLLM runs the documented ``log_pre_api_call`` of its input callbacks before every request of the three endpoints,
synchronous or not, streamed or not (``tests/integrations/litellm/test_departure.py`` looks at each). What failed before
that moment was never sent; and a group of several models was answered by the one that is named there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

import litellm
from litellm.integrations.custom_logger import CustomLogger

from llm_cost_middleware.integrations.litellm.deployments import WAYS, Platforms, target_at
from llm_cost_middleware.integrations.litellm.signed_ids import governed_call_id
from llm_cost_middleware.nesting import leaving_call
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.platform import platform_in_litellm
from llm_cost_middleware.request import ModelRef


class Departure:
    """One attempt of a governed call.

    Args:
        pipeline: The one that holds its money.
    """

    __slots__ = ("__weakref__", "answer", "deployment", "keeps_answer", "left", "pipeline", "target")

    def __init__(self, pipeline: CostPipeline | None = None) -> None:
        self.pipeline = pipeline
        self.left = False
        """Its request was handed over to be sent."""
        self.target: ModelRef | None = None
        """The model that it was sent to; ``None`` before."""
        self.deployment: Any = None
        """The id of the deployment that it was sent to, where LiteLLM's router sends it."""
        self.keeps_answer = False
        """Whether ``answer`` is wanted."""
        self.answer: Any = None
        """The provider's own, as an object or as JSON: LiteLLM adds to it what its cache knows of other pieces."""

    @property
    def never_left(self) -> bool:
        """Whether nothing was sent, as far as this can be known: not where somebody has emptied LiteLLM's list."""
        return not self.left and _watch in litellm.input_callback


_departures: WeakValueDictionary[str, Departure] = WeakValueDictionary()


def expect(call_id: str, pipeline: CostPipeline | None = None) -> Departure:
    """Watch for the request of an attempt of ``pipeline``, as long as what is returned is kept."""
    if _watch not in litellm.input_callback:
        litellm.input_callback.append(_watch)
    departure = _departures[call_id] = Departure(pipeline)
    return departure


def _target(provider: str, name: str, kwargs: Mapping[str, Any], platforms: Platforms) -> ModelRef:
    """What is called, where it is sent."""
    platform = platform_in_litellm(provider)
    if platform is None:
        return ModelRef(provider, name)
    params = kwargs.get("litellm_params") or {}
    url = (kwargs.get("additional_args") or {}).get("api_base") or params.get("api_base")  # as it is sent
    return target_at(platform, name, {**params, "api_base": url}, platforms) or ModelRef(platform.name, name)


class _Watch(CustomLogger):  # type: ignore[misc]  # LiteLLM is not typed
    def log_pre_api_call(self, model: Any, messages: Any, kwargs: Mapping[str, Any]) -> None:
        """LiteLLM's notice. It is no place to refuse a request: what is raised here is swallowed."""
        del messages
        departure = _departures.get(governed_call_id(kwargs.get("litellm_params") or {}) or "")
        if departure is not None and departure.pipeline is not None:  # a governed client that sends it books nothing
            leaving_call("litellm", str(kwargs.get("litellm_call_id"))).held_by(departure.pipeline)
        if departure is not None and not departure.left:  # LiteLLM may ask more than once for one call
            departure.left = True
            info = (kwargs.get("litellm_params") or {}).get("model_info")
            departure.deployment = info.get("id") if isinstance(info, Mapping) else None
            name, provider = str(model), kwargs.get("custom_llm_provider")
            for way in WAYS:
                name = name.removeprefix(way)
            platforms = departure.pipeline.config.platforms if departure.pipeline is not None else {}
            departure.target = _target(str(provider), name.removeprefix(f"{provider}/"), kwargs, platforms)

    def log_post_api_call(self, kwargs: Mapping[str, Any], response_obj: Any, start_time: Any, end_time: Any) -> None:
        """LiteLLM's notice of what came back."""
        del response_obj, start_time, end_time
        departure = _departures.get(governed_call_id(kwargs.get("litellm_params") or {}) or "")
        if departure is not None and departure.keeps_answer:
            departure.answer = kwargs.get("original_response")


_watch = _Watch()
