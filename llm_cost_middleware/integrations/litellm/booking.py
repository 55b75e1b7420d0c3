"""Booking after the fact what LiteLLM sent without a reservation."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Mapping
from decimal import Decimal
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from llm_cost_middleware.budget.model import Receipt
from llm_cost_middleware.context import METADATA_KEY, current_context, read_context
from llm_cost_middleware.errors import LLMCostError
from llm_cost_middleware.metering import encode_memo, price_usage
from llm_cost_middleware.money import ceil_nanousd
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.provider import UsageReading
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallContext, Target
from llm_cost_middleware.tracker import CostRecord
from llm_cost_middleware.wire import getter, mapping

_log = logging.getLogger(__name__)
_LATELY = 1_000
"""Bookings remembered by their ids. Those before them are known by their time."""
_SAME_MOMENT_S = 1.0
"""A ledger's time may differ by so much from this process's."""
_recorded: WeakKeyDictionary[CostPipeline, deque[str]] = WeakKeyDictionary()
_lock = Lock()


def book_reading(
    pipeline: CostPipeline,
    reading: UsageReading,
    target: Target,
    context: CallContext,
    *,
    booking_id: str,
    estimated: bool,
) -> None:
    """Book an answer at what it cost, and keep its record. Booking the same id again changes nothing.

    Args:
        pipeline: Whose ledger and prices.
        reading: What the answer says of its bill.
        target: The model that was asked.
        context: The scopes of the call.
        booking_id: Names the attempt.
        estimated: The reading is not the provider's own.
    """
    rules = get_provider(target.provider)
    priced = price_usage(reading, rules, pipeline.catalogue, at=pipeline.clock.now(), requested_model=target.model)
    if priced.cost_nanousd is None:
        _log.warning("a call of %s was not booked: %s", target, "; ".join(priced.notes))
        return
    scopes = (*context.scopes, f"provider:{target.provider}", f"model:{target.model}")
    memo = encode_memo(call_id=booking_id, attempt=1, target=target, priced=priced, reading=reading)
    exact = priced.status == "exact" and not estimated
    began = pipeline.clock.now()
    receipt = pipeline.ledger.book(
        priced.cost_nanousd, scopes, id=booking_id, memo=memo, status="exact" if exact else "estimated"
    )
    if _is_first(pipeline, receipt, began):
        usage = reading.usage if reading.items else None
        pipeline.record(
            CostRecord(
                model=target.model,
                input_tokens=usage.input_tokens if usage else 0,
                output_tokens=usage.output_tokens if usage else 0,
                cost_usd=receipt.amount_nanousd.usd,
                usage=usage,
                at=receipt.at,
                status="exact" if exact else "estimated",
                provider=target.provider,
                call_id=booking_id,
                requested_model=target.model,
                response_id=reading.response_id,
                price_version=priced.price_version,
                scopes=scopes,
            )
        )


def _is_first(pipeline: CostPipeline, receipt: Receipt, began: float) -> bool:
    """Whether a booking was made just now: a ledger hands out the first receipt for every other of the same id."""
    with _lock:
        lately = _recorded.setdefault(pipeline, deque(maxlen=_LATELY))
        if receipt.id in lately or receipt.at < began - _SAME_MOMENT_S:
            return False
        lately.append(receipt.id)
        return True


def book_ungoverned(pipeline: CostPipeline, answer: Any, kwargs: Mapping[str, Any]) -> None:
    """Book an answer that is not governed at the price that LiteLLM names for it, where it names one."""
    cost = mapping(getter(answer)("_hidden_params")).get("response_cost")
    if not isinstance(cost, int | float) or cost <= 0:
        return
    try:
        metadata = kwargs.get("metadata")
        context = read_context(metadata.get(METADATA_KEY)) if isinstance(metadata, Mapping) else current_context()
        booking_id = f"ungoverned.{os.urandom(8).hex()}"
        memo = encode_memo(call_id=booking_id, attempt=1, target=None)
        amount = ceil_nanousd(Decimal(repr(cost)))
        receipt = pipeline.ledger.book(amount, context.scopes, id=booking_id, memo=memo, status="estimated")
        pipeline.record(
            CostRecord(
                model=str(kwargs.get("model") or ""),
                input_tokens=0,
                output_tokens=0,
                cost_usd=amount.usd,
                at=receipt.at,
                status="estimated",
                call_id=booking_id,
                scopes=context.scopes,
            )
        )
    except LLMCostError as error:  # the call is done and paid: its answer must not be lost
        _log.error("an ungoverned call was not booked: %s", error)
