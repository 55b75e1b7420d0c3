"""What each team spent yesterday is one command and one call, and both say what the provider billed for that day."""

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import openai
from typer.testing import CliRunner

from llm_cost_middleware import Budget, CostConfig, CostPipeline, cost_context
from llm_cost_middleware.cli.app import app
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator import Answer, Simulator
from llm_cost_middleware.testing import FakeClock

PLAN = [  # hours after the start of the day before yesterday, team, words
    (1.0, "search", 500), (23.99, "search", 300), (24.01, "search", 1200), (27.0, "ads", 400), (30.0, None, 700),
    (33.5, "search", 800), (40.0, "payments", 2500), (47.99, "ads", 250), (48.001, "ads", 3000),
    (48.002, "growth", 650),
]  # fmt: skip


def test_yesterday_by_team_is_what_the_provider_billed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start = (today - timedelta(days=2)).timestamp()
    clock, wanted = FakeClock(start), defaultdict(Decimal)
    config = CostConfig(ledger="l.db", budgets=[Budget("team:*", "5", "day")])
    with (
        Simulator(responder=lambda request: Answer(text="answer", output_tokens=100)) as sim,
        CostPipeline(config, clock=clock) as pipeline,
    ):
        client = wrap_openai(openai.OpenAI(api_key="k", base_url=sim.openai_url), pipeline)
        for hours, team, words in PLAN:
            clock.advance(start + hours * 3_600 - clock.now())
            before = sim.bill.total_nanousd
            with cost_context(**({"team": team} if team else {})):
                client.chat.completions.create(
                    model="gpt-5-mini",
                    max_completion_tokens=200,
                    messages=[{"role": "user", "content": "word " * words}],
                )
            if 24 <= hours < 48:
                wanted[team] += Decimal(sim.bill.total_nanousd - before).scaleb(-9)
        span = {"since": today - timedelta(days=1), "until": today}
        assert pipeline.report("team", **span).spend() == wanted
    words = "report --by team --since yesterday --until today --timezone UTC --json --ledger l.db"
    told = CliRunner().invoke(app, words.split())
    rows = json.loads(told.output)["rows"]
    assert {row["team"]: Decimal(row["cost_usd"]) for row in rows} == wanted
