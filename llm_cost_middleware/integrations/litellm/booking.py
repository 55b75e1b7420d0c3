"""Booking what LiteLLM sent and nothing governs, at the price that LiteLLM names for it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from llm_cost_middleware.context import METADATA_KEY, current_context, read_context
from llm_cost_middleware.errors import LLMCostError
from llm_cost_middleware.money import ceil_nanousd
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.wire import as_mapping, field_reader

_log = logging.getLogger(__name__)


def book_ungoverned(pipeline: CostPipeline, answer: Any, kwargs: Mapping[str, Any]) -> None:
    """Book an answer that is not governed at the price that LiteLLM names for it, where it names one."""
    cost = as_mapping(field_reader(answer)("_hidden_params")).get("response_cost")
    if not isinstance(cost, int | float) or cost <= 0:
        return  # LiteLLM writes zero where it knows no price, and a cost that is not known is not booked as none
    try:
        metadata = kwargs.get("metadata")
        context = read_context(metadata.get(METADATA_KEY)) if isinstance(metadata, Mapping) else current_context()
        # a float there: its shortest decimal is the price that was meant
        amount = ceil_nanousd(Decimal(repr(cost)))
        target = ModelRef("", str(kwargs.get("model") or ""))
        pipeline.book(amount, target, context, id=f"ungoverned.{os.urandom(8).hex()}")
    except LLMCostError as error:  # the call is done and paid: its answer must not be lost
        _log.error("an ungoverned call was not booked: %s", error)
