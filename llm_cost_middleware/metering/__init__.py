"""From usage to money: the price of a response, and the memo of a ledger row."""

from llm_cost_middleware.metering.memo import Memo, MemoItem, decode_memo, encode_memo, reprice
from llm_cost_middleware.metering.price import (
    PricedCall,
    PricedItem,
    PriceStatus,
    SeenResponses,
    estimate_interrupted,
    price_reading,
    price_response,
)
from llm_cost_middleware.metering.sums import MemoSums

__all__ = [
    "Memo",
    "MemoItem",
    "MemoSums",
    "PriceStatus",
    "PricedCall",
    "PricedItem",
    "SeenResponses",
    "decode_memo",
    "encode_memo",
    "estimate_interrupted",
    "price_reading",
    "price_response",
    "reprice",
]
