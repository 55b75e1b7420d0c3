"""Events as lines of the log."""

from __future__ import annotations

import logging

import pytest

from llm_cost_middleware.events import BudgetRefused, OutputCapReached, RequestAdjusted
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.observers.logging import LoggingObserver


@pytest.mark.parametrize(
    ("event", "level", "begins"),
    [
        (RequestAdjusted("c", 1.0, "cap_output", "8192", "1208"), logging.INFO, "request adjusted call_id=c action="),
        (RequestAdjusted("c", 1.0, "drop_cache_marks", "2", "0"), logging.INFO, "request adjusted call_id=c action="),
        (RequestAdjusted("c", 1.0, "downgrade", "a", "b"), logging.WARNING, "request adjusted call_id=c action="),
        (
            BudgetRefused("c", 1.0, "openai/x", "global", NanoUSD(1), enforced=True),
            logging.WARNING,
            "budget refused call_id=c model=",
        ),
        (OutputCapReached("c", 1.0, "openai/x", 9), logging.WARNING, "output cap reached call_id=c model="),
    ],
)
def test_a_call_that_fits_by_a_cap_is_no_warning(caplog, event, level, begins):
    with caplog.at_level(logging.INFO, "llm_cost_middleware"):
        LoggingObserver().on_event(event)
    (record,) = caplog.records
    assert (record.levelno, record.message[: len(begins)]) == (level, begins)
