"""What the guards of platforms' chat models share: the entries, where a call notes what it says of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables.config import ensure_config

from llm_cost_middleware.integrations.langchain.errors import RetryOn, except_refusals
from llm_cost_middleware.integrations.langchain.runtime import ROUTE_KEY, RouteArgument

if TYPE_CHECKING:
    from langchain_core.messages import AIMessageChunk, BaseMessage
    from langchain_core.outputs import LLMResult
    from langchain_core.runnables import Runnable

    _Model = BaseChatModel
else:
    _Model = object  # the user's own class takes this place


class GuardEntries(_Model):
    """What a call says of itself travels on as an argument, past traces and the handlers' books."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._llm_cost_hold(self)  # LangChain makes it anew of its fields, for configurable ones

    @staticmethod
    def _llm_cost_hold(model: Any) -> None:
        """Govern the clients that a model was made with; of those that hold none, nothing."""

    def generate(
        self, messages: list[list[BaseMessage]], stop: list[str] | None = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """As LangChain does."""
        return super().generate(messages, stop, callbacks, **_noted(kwargs, kwargs.get("metadata")))

    async def agenerate(
        self, messages: list[list[BaseMessage]], stop: list[str] | None = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """As LangChain does."""
        return await super().agenerate(messages, stop, callbacks, **_noted(kwargs, kwargs.get("metadata")))

    def stream(self, input: Any, config: Any = None, **kwargs: Any) -> Iterator[AIMessageChunk]:  # noqa: A002 - as LangChain names it
        """As LangChain does."""
        config = ensure_config(config)
        return super().stream(input, config, **_noted(kwargs, config.get("metadata")))

    def astream(self, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[AIMessageChunk]:  # noqa: A002 - as LangChain names it
        """As LangChain does."""
        config = ensure_config(config)
        return super().astream(input, config, **_noted(kwargs, config.get("metadata")))

    def with_retry(self, *, retry_if_exception_type: RetryOn = (Exception,), **kwargs: Any) -> Runnable[Any, Any]:
        """As LangChain does, but a refusal is not retried."""
        return super().with_retry(retry_if_exception_type=except_refusals(retry_if_exception_type), **kwargs)

    def __reduce__(self) -> Any:
        raise TypeError(
            "a guarded model holds clients and a ledger: pickle the plain model, and guard it where it runs"
        )


def _noted(kwargs: dict[str, Any], metadata: Any) -> dict[str, Any]:
    return {**kwargs, ROUTE_KEY: RouteArgument.create(metadata)}
