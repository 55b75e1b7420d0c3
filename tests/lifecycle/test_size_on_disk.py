"""What a call takes on the disk: whole calls through a pipeline, as the pages of the file are."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from secrets import token_hex

import pytest
from msgspec import structs

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.context import read_context
from llm_cost_middleware.request import CallRequest, CallResult, Message, Part
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

BUDGETS = [{"scope": "global", "limit": "1000000"}, {"scope": "user:*", "limit": "100000", "window": "month"}]
TIERS = [{"name": "small", "models": ["anthropic/claude-haiku-4-5-20251001"]}]
BOTH = frozenset({"anthropic", "openai"})
MANUAL = "You are a careful clerk of a small shop. " * 600


def answer(attempt):
    usage = UsageReport((BilledItem(TokenUsage(uncached_input=120, output=50)),), model=attempt.target.model)
    return CallResult("yes", structs.replace(usage, finish_reason="stop", response_id=f"msg_{token_hex(12)}"))


def run(pipe, number, system):
    messages = (*system, Message("user", (Part("text", f"question {number}: how many boxes are left?"),)))
    context = read_context({"user": f"u{number % 50}", "team": "shop", "run": f"r{number // 20}"})
    pipe.run(CallRequest("anthropic", "smart", messages, max_tokens=200, context=context), answer, providers=BOTH)


@pytest.mark.parametrize("prompt", ["short", "of its own, marked"])
def test_a_call_takes_less_than_900_bytes(prompt, tmp_path):
    """Between two sizes, as a file has pages of its own whatever it holds; twenty calls are one run."""
    path, sizes = tmp_path / "l.db", []
    system = (Message("system", (Part("text", MANUAL),)),) if prompt != "short" else ()
    for count in (200, 400):
        with CostPipeline(
            CostConfig.read({"ledger": {"url": f"sqlite:///{path}"}, "budgets": BUDGETS, "tiers": TIERS})
        ) as pipe:
            for number in range(count):
                run(pipe, number, system)
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            assert db.execute("SELECT count(*) FROM shared").fetchone()[0] >= (count if system else 0)
        sizes.append(path.stat().st_size)
    each = (sizes[1] - sizes[0]) / 400
    assert each < 900, each
