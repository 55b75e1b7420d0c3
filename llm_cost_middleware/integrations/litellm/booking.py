"""What LiteLLM sends and nothing governs: a row before it leaves, and the price that LiteLLM names for it after."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from llm_cost_middleware.context import METADATA_KEY, current_context, read_context
from llm_cost_middleware.errors import LedgerUnavailableError, LLMCostError
from llm_cost_middleware.money import ceil_nanousd
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.request import CallContext, ModelRef
from llm_cost_middleware.wire import as_mapping, field_reader

_log = logging.getLogger(__name__)
_REMEMBERED = 10_000
"""Calls that wait for their price, at most."""


class UngovernedCall:
    """A call that leaves past the middleware, as ``on_ungoverned`` allows.

    With ``warn`` it has a row in the ledger before it leaves, marked ``unpriced`` until a price is known.

    Args:
        pipeline: The pipeline.
        what: What the call is, for the warning.
        advice: What to do instead.
        target: The model, its provider empty where it has no price here.
        context: Whose call it is.

    Raises:
        UnsupportedRequestError: ``on_ungoverned`` is ``deny``.
        ScopePausedError: One of its scopes is paused.
        LedgerError: Its row cannot be written: then it must not leave.
    """

    def __init__(
        self, pipeline: CostPipeline, what: str, advice: str, *, target: ModelRef, context: CallContext
    ) -> None:
        pipeline.ungoverned(what, advice, context=context, target=target)
        self._pipeline, self._target, self._context = pipeline, target, context
        self._id = f"ungoverned.{os.urandom(8).hex()}"
        self._noted = pipeline.config.on_ungoverned == "warn"
        if self._noted:
            try:
                pipeline.book(None, target, context, id=self._id)
            except LedgerUnavailableError:
                if pipeline.config.ledger.on_unavailable != "allow":
                    raise
                self._noted = False

    def book(self, cost: Any) -> None:
        """Book it at the price that LiteLLM names for it, in USD, where it names one."""
        if not isinstance(cost, int | float) or cost <= 0:
            return  # LiteLLM writes zero where it knows no price, and a cost that is not known is not booked as none
        try:
            # a float: its shortest decimal is the price that was meant
            amount = ceil_nanousd(Decimal(repr(cost)))
            self._pipeline.book(amount, self._target, self._context, id=self._id, noted=self._noted)
        except LLMCostError as error:  # the call is done and paid: its answer must not be lost
            _log.error("an ungoverned call was not booked: %s", error)

    def book_answer(self, answer: Any) -> None:
        """Book it at the price that LiteLLM names in its answer."""
        self.book(as_mapping(field_reader(answer)("_hidden_params")).get("response_cost"))


def let_pass(pipeline: CostPipeline, what: str, advice: str, arguments: Mapping[str, Any]) -> UngovernedCall:
    """A router's call that is about to leave ungoverned. Raises as ``UngovernedCall``."""
    metadata = arguments.get("metadata")
    context = read_context(metadata.get(METADATA_KEY)) if isinstance(metadata, Mapping) else current_context()
    target = ModelRef("", str(arguments.get("model") or ""))
    return UngovernedCall(pipeline, what, advice, target=target, context=context)


class PassingCalls:
    """Calls of the proxy that were let pass, until LiteLLM names their price, which it does after the answer.

    Told by the id that LiteLLM gives a request, which its client may choose: whoever gives two requests one id may swap
    the prices of their rows, and of nobody else's.
    """

    def __init__(self) -> None:
        self._calls: OrderedDict[str, list[UngovernedCall]] = OrderedDict()

    def add(self, request_id: Any, call: UngovernedCall) -> None:
        """Note one."""
        self._calls.setdefault(str(request_id), []).append(call)
        while len(self._calls) > _REMEMBERED:  # not every request is reported
            self._calls.popitem(last=False)

    def pop(self, request_id: Any) -> UngovernedCall | None:
        """The one that was answered."""
        calls = self._calls.get(str(request_id))
        if not calls:
            return None
        found = calls.pop(0)
        if not calls:
            del self._calls[str(request_id)]
        return found
