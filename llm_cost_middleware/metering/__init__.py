"""Metering: the price of a response (``price``), and the memo of a ledger row (``memo``)."""

from llm_cost_middleware.metering.memo import AttemptMemo, Memo, MemoItem, decode_memo, encode_memo, reprice
from llm_cost_middleware.metering.price import (
    PricedCall,
    PricedItem,
    PriceStatus,
    SeenResponses,
    max_cost_of_interrupted,
    price_answer,
    price_response,
    price_usage,
)
from llm_cost_middleware.metering.summary import MemoSummary

__all__ = [
    "AttemptMemo",
    "Memo",
    "MemoItem",
    "MemoSummary",
    "PriceStatus",
    "PricedCall",
    "PricedItem",
    "SeenResponses",
    "decode_memo",
    "encode_memo",
    "max_cost_of_interrupted",
    "price_answer",
    "price_response",
    "price_usage",
    "reprice",
]
