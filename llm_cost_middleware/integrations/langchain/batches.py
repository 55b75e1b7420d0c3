"""Batches: a look at the price before the first call, and a progress bar on request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables.config import get_config_list, merge_configs

from llm_cost_middleware.errors import BudgetExceededError, LLMCostError, readable
from llm_cost_middleware.integrations.langchain.errors import ERRORS
from llm_cost_middleware.patterns.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from langchain_core.runnables import RunnableConfig

    from llm_cost_middleware.integrations.langchain.runtime import GuardRuntime
    from llm_cost_middleware.request import CallRequest


def refuse_what_cannot_fit(
    runtime: GuardRuntime, model: Any, inputs: Sequence[Any], config: Any, arguments: Mapping[str, Any]
) -> None:
    """Raise before the first call of a batch that is expected to cost more than its budgets have left.

    Expected, not at most: an answer counts with the length that this call site has produced so far.

    Raises:
        BudgetExceededError: With what the batch is expected to cost.
    """
    if not inputs:
        return
    # calls of different scopes draw on different budgets
    groups: dict[tuple[frozenset[str], tuple[str, ...]], list[CallRequest]] = {}
    for given, one in zip(inputs, get_config_list(config, len(inputs)), strict=True):
        messages = model._convert_input(given).to_messages()  # noqa: SLF001 - as every entry of a model does
        request, providers = runtime.read(model, messages, arguments, one.get("metadata"), stream=False)
        groups.setdefault((providers, request.context.scopes), []).append(request)
    pipeline, expected = runtime.pipeline, 0
    for (providers, scopes), requests in groups.items():
        try:
            quote = pipeline.quote(requests, providers=providers)
        except LLMCostError:
            continue  # a call that cannot be made costs nothing; it says so itself
        expected += quote.expected_nanousd
        for wanted, within in ((quote.expected_nanousd, scopes), (expected, ())):
            available = pipeline.ledger.available(within)
            if available is not None and wanted > available:
                advice = f"at most {readable(quote.bound, up=True)}; {quote.advice}"
                requested = Decimal(wanted).scaleb(-9)
                amounts = Decimal(0), available.usd
                refusal = BudgetExceededError(*amounts, scope="batch", requested=requested, advice=advice)
                ERRORS.raised(refusal.shown_in(pipeline.catalogue.currency))


class _Bar(BaseCallbackHandler):
    """Advances with every run that ends at the top."""

    run_inline = True

    def __init__(self, tell: Callable[[int, int], object], total: int, *, models: bool) -> None:
        self._tell, self._total, self._done, self._models = tell, total, 0, models

    def _advance(self) -> None:
        self._done += 1
        self._tell(self._done, self._total)

    def _ended(self, *_: Any, parent_run_id: UUID | None = None, **__: Any) -> None:
        if parent_run_id is None or self._models:
            self._advance()

    on_llm_end = on_llm_error = _ended

    def on_chain_end(self, outputs: Any, *, parent_run_id: UUID | None = None, **_: Any) -> None:
        """A chain has answered."""
        del outputs
        if parent_run_id is None:
            self._advance()

    def on_chain_error(self, error: BaseException, *, parent_run_id: UUID | None = None, **_: Any) -> None:
        """A chain has failed."""
        del error
        if parent_run_id is None:
            self._advance()


@contextmanager
def batch_progress(total: int) -> Iterator[BaseCallbackHandler]:
    """A progress bar on standard error for the batch of any chain.

    ::

        with batch_progress(len(questions)) as bar:
            chain.batch(questions, {"callbacks": [bar]})

    Args:
        total: How many inputs there are.

    Yields:
        The handler that advances it.
    """
    with progress_bar(total, show=True) as tell:
        yield _Bar(tell, total, models=False)


@contextmanager
def with_progress(config: Any, total: int, *, show: bool) -> Iterator[list[RunnableConfig]]:
    """The configurations of a batch of models, with a progress bar among their callbacks where one is wanted."""
    configs = get_config_list(config, total) if total else []
    if not show:
        yield configs
        return
    with progress_bar(total, show=True) as tell:
        bar = _Bar(tell, total, models=True)
        yield [merge_configs(one, {"callbacks": [bar]}) for one in configs]
