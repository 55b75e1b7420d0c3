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

__all__ = [
    "Memo",
    "MemoItem",
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
