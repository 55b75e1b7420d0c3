"""This package's errors in LangChain's own classes: each refusal is also a ``ModelError`` that no retry can help.

A ledger that does not answer is none: it may be asked again. The classes are attributes of this module:
``from llm_cost_middleware.integrations.langchain.errors import BudgetExceededError``.
"""

from __future__ import annotations

from collections.abc import Callable

from langchain_core import exceptions as langchain_exceptions
from langchain_core.runnables.retry import RunnableRetry

from llm_cost_middleware.errors import LedgerError, LLMCostError
from llm_cost_middleware.refusals import HostErrors

# langchain-core has ModelError since 1.6; an older one has no retry hints to give
_MODEL_ERROR: type[Exception] | None = getattr(langchain_exceptions, "ModelError", None)
RetryOn = tuple[type[BaseException], ...] | Callable[[BaseException], bool]
_RETRY_TAKES_FUNCTIONS = "Callable" in str(RunnableRetry.model_fields["retry_exception_types"].annotation)  # since 1.7


def _bases(kind: type[LLMCostError]) -> tuple[type[Exception], ...]:
    return () if _MODEL_ERROR is None or issubclass(kind, LedgerError) else (_MODEL_ERROR,)


ERRORS = HostErrors(__name__, _bases)


def __getattr__(name: str) -> type[LLMCostError]:
    return ERRORS.named(name)


def except_refusals(kinds: RetryOn) -> RetryOn:
    """The exceptions that a ``Runnable.with_retry`` retries, without refusals: waiting adds no money and no price."""
    if isinstance(kinds, _ExceptRefusals) or not _RETRY_TAKES_FUNCTIONS:
        return kinds
    return _ExceptRefusals(kinds)


class _ExceptRefusals:
    def __init__(self, kinds: RetryOn) -> None:
        self._kinds = kinds

    def __call__(self, error: BaseException) -> bool:
        if isinstance(error, LLMCostError) and not isinstance(error, LedgerError):
            return False
        return isinstance(error, self._kinds) if isinstance(self._kinds, tuple) else self._kinds(error)
