"""Chat models that cannot be guarded: reported or refused, and metered by a handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from llm_cost_middleware.pipeline import CostPipeline

    Model = TypeVar("Model", bound=BaseChatModel)
else:
    Model = TypeVar("Model")


def metered_only(model: Model, pipeline: CostPipeline) -> Model:
    """A copy of ``model`` that is metered where a price is known.

    Raises:
        UnsupportedRequestError: ``on_ungoverned`` is ``deny``.
    """
    from llm_cost_middleware.integrations.langchain.callback import CostCallbackHandler

    what = f"{type(model).__module__}.{type(model).__qualname__}"
    advice = f"{_advice(type(model).__name__)}; as it is, it is metered where a price is known"
    pipeline.ungoverned(what, advice, leaves=False)
    own: Any = getattr(model.callbacks, "handlers", model.callbacks) or ()
    return model.model_copy(update={"callbacks": [*own, CostCallbackHandler(pipeline)]})


def _advice(name: str) -> str:
    """How to have it governed after all."""
    if name.startswith("Azure"):
        return "guard an AzureChatOpenAI"
    if name.startswith("ChatLiteLLM"):
        return "give ChatLiteLLMRouter a CostAwareRouter, or guard a ChatAnthropic or ChatOpenAI"
    if name.startswith("ChatBedrock"):
        return "at Bedrock Claude alone is governed: guard a ChatBedrockConverse of a Claude model"
    if name.startswith(("ChatVertex", "ChatAnthropicVertex", "VertexModelGarden")):
        return "at Vertex Claude alone is governed: guard a ChatAnthropicVertex of a Claude model"
    return "guard a ChatAnthropic or ChatOpenAI"
