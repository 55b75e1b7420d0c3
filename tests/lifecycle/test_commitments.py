"""What was promised to a provider for a term, and what is spent of it: from the rows, in every storage alike."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from typer.testing import CliRunner

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.cli.app import app
from llm_cost_middleware.metering import decode_memo
from llm_cost_middleware.request import NO_CONTEXT, ModelRef
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
DAY = 86_400
TERM = {"valid_from": "2026-01-01", "valid_until": "2027-01-01"}
PRICES = {
    "discount": "1%",
    "discounts": {
        "anthropic": {"discount": "10%", "committed": "2000", **TERM},
        "openai/gpt-5-mini": {"discount": "20%", "committed": "$1,000", **TERM},
    },
}


def used(model, output=1_000_000):
    return UsageReport(items=(BilledItem(TokenUsage(output=output)),), model=model, complete=True)


@pytest.fixture(params=["memory", "sqlite"])
def pipeline(request, tmp_path):
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/l.db"
    clock = FakeClock(START - 10 * DAY)
    with CostPipeline(CostConfig(prices=PRICES, ledger={"url": url}), clock=clock) as opened:
        yield opened


def book(pipeline, named, provider, model, **more):
    pipeline.book(used(model), ModelRef(provider, model), NO_CONTEXT, id=named, **more)


def test_what_is_spent_of_a_commitment_is_what_the_rows_say(pipeline):
    clock = pipeline.clock
    book(pipeline, "before", "anthropic", "claude-haiku-4-5")
    assert [one.course_nanousd for one in pipeline.commitments()] == [None, None]
    clock.advance(10 * DAY)
    book(pipeline, "alias", "anthropic", "claude-haiku-4-5")  # $5, less a tenth
    book(pipeline, "snapshot", "anthropic", "claude-haiku-4-5-20251001")
    book(pipeline, "guess", "anthropic", "claude-opus-4-5", estimated=True)  # $25
    book(pipeline, "mini", "openai", "gpt-5-mini-2025-08-07")  # $2, less a fifth
    book(pipeline, "other", "openai", "gpt-5")
    clock.advance(73 * DAY)
    theirs, mini = pipeline.commitments()
    assert (theirs.name, theirs.committed_nanousd.usd, theirs.spent_nanousd.usd) == ("anthropic", 2000, 31.5)
    assert (theirs.unsure_nanousd.usd, theirs.left_nanousd.usd) == (22.5, 1968.5)
    assert theirs.course_nanousd == theirs.spent_nanousd * 5, "a fifth of the year has passed"
    assert (mini.name, mini.spent_nanousd.usd) == ("openai/gpt-5-mini", Decimal("1.6"))
    clock.advance(400 * DAY)
    book(pipeline, "after", "anthropic", "claude-haiku-4-5")
    assert pipeline.commitments()[0].spent_nanousd == theirs.spent_nanousd
    assert pipeline.commitments()[0].course_nanousd == theirs.spent_nanousd


def test_a_promise_that_is_kept_leaves_nothing(pipeline):
    pipeline.clock.advance(10 * DAY)
    pipeline.book(used("gpt-5-mini", 10**9), ModelRef("openai", "gpt-5-mini"), NO_CONTEXT, id="a")
    _, mini = pipeline.commitments()
    assert (mini.spent_nanousd.usd, mini.left_nanousd) == (1600, 0)


def test_every_row_names_the_contract_that_priced_it(pipeline):
    pipeline.clock.advance(10 * DAY)
    book(pipeline, "a", "anthropic", "claude-haiku-4-5")
    book(pipeline, "b", "openai", "gpt-5-mini")
    book(pipeline, "c", "openai", "gpt-5")
    versions = {row.id: decode_memo(row.memo).price_version for row in pipeline.ledger.rows()}
    told = {name: version.partition(", contract ")[2] for name, version in versions.items()}
    assert told == {"a": "anthropic -10%", "b": "openai/gpt-5-mini -20%", "c": "-1%"}


def test_the_command_shows_contracts_and_what_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llm-cost.toml").write_text(
        '[ledger]\nurl = "sqlite:///l.db"\n[prices]\ndiscount = "33.3%"\n[prices.discounts]\n'
        'anthropic = {discount = "10%", valid_from = 2026-01-01, valid_until = 2100-01-01, committed = "2000"}\n'
    )
    with CostPipeline("llm-cost.toml") as opened:
        book(opened, "a", "anthropic", "claude-haiku-4-5")

    def run(*words):
        return CliRunner().invoke(app, ["prices", "--contracts", *words], catch_exceptions=False).output

    general, theirs = json.loads(run("--json"))["contracts"]
    assert (general["discount"], general["committed_usd"]) == ("0.333", None)
    assert (theirs["committed_usd"], theirs["spent_usd"], theirs["left_usd"]) == (
        "2000.000000000", "4.500000000", "1995.500000000",
    )  # fmt: skip
    assert "33.3%" in run()
    assert "1,995.50" in run()
    (tmp_path / "llm-cost.toml").write_text("")
    assert "no discount is agreed" in run()
