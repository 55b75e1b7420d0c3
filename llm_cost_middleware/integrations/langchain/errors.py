"""Errors in LangChain's own classes: a refused budget is also a ``ModelError`` that no retry can help."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NoReturn

from langchain_core import exceptions as langchain_exceptions
from langchain_core.runnables.retry import RunnableRetry

from llm_cost_middleware.errors import BudgetExceededError

# langchain-core has ModelError since 1.6; a plain Exception keeps an older one working, without its retry hints
_ModelError: type[Exception] = getattr(langchain_exceptions, "ModelError", Exception)
RetryOn = tuple[type[BaseException], ...] | Callable[[BaseException], bool]
_RETRY_TAKES_FUNCTIONS = "Callable" in str(RunnableRetry.model_fields["retry_exception_types"].annotation)  # since 1.7


@cache
def budget_error_class() -> type[BudgetExceededError]:
    """``BudgetExceededError`` that is also LangChain's ``ModelError``, with ``is_retryable = False``."""
    bases = (BudgetExceededError,) if _ModelError is Exception else (BudgetExceededError, _ModelError)
    return type("BudgetExceededError", bases, {"__doc__": BudgetExceededError.__doc__, "__module__": __name__})


def except_budget_refusals(kinds: RetryOn) -> RetryOn:
    """The exceptions that a ``Runnable.with_retry`` retries, without refused budgets: waiting adds no money."""
    if isinstance(kinds, _ExceptBudgetRefusals) or not _RETRY_TAKES_FUNCTIONS:
        return kinds
    return _ExceptBudgetRefusals(kinds)


class _ExceptBudgetRefusals:
    def __init__(self, kinds: RetryOn) -> None:
        self._kinds = kinds

    def __call__(self, error: BaseException) -> bool:
        if isinstance(error, BudgetExceededError):
            return False
        return isinstance(error, self._kinds) if isinstance(self._kinds, tuple) else self._kinds(error)


def raise_as_model_error(error: BudgetExceededError) -> NoReturn:
    """Raise ``error`` as LangChain's own kind, with the same facts and the same traceback."""
    kind = budget_error_class()
    if isinstance(error, kind):
        raise error
    twin = kind(error.total_cost, error.budget_limit)
    twin.__dict__.update(error.__dict__)
    twin.args = error.args
    raise twin.with_traceback(error.__traceback__) from None
