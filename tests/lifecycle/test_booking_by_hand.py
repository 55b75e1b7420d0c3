"""``CostPipeline.book``: an answer or an amount that was spent past the pipeline."""

from __future__ import annotations

from decimal import Decimal

import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.errors import InvalidAmountError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import CallContext, ModelRef

TARGET = ModelRef("openai", "gpt-5-mini")


@pytest.mark.parametrize("amount", [NanoUSD(5_000_000_000), 5, 5.0, "5", Decimal(5)])
def test_an_amount_is_dollars_unless_it_says_otherwise_and_keeps_every_scope(amount):
    with CostPipeline(CostConfig()) as pipeline:
        for _ in range(2):  # the same id again changes nothing
            pipeline.book(amount, TARGET, CallContext(scopes=("user:42",)), id="a.1")
        for scope in ("global", "user:42", "provider:openai", "model:gpt-5-mini"):
            assert pipeline.ledger.balance(scope).settled == 5
        (record,) = pipeline.records()
        assert (record.cost_usd, record.provider, record.model) == (5, "openai", "gpt-5-mini")
        assert set(record.scopes) == {"user:42", "provider:openai", "model:gpt-5-mini"}


@pytest.mark.parametrize("amount", [-1, "x", float("nan"), True])
def test_what_is_no_amount_is_refused_before_anything_is_booked(amount):
    with CostPipeline(CostConfig()) as pipeline:
        with pytest.raises(InvalidAmountError):
            pipeline.book(amount, TARGET, CallContext(), id="a.1")
        assert list(pipeline.ledger.rows()) == []
