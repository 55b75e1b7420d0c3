"""What a batch is quoted before it starts: at most, and as expected from what its call sites answered before."""

from __future__ import annotations

import anthropic
import pytest

from llm_cost_middleware import (
    BudgetExceededError,
    ConfigurationError,
    CostConfig,
    CostPipeline,
    CostTracker,
    aprocess_many,
    process_many,
)
from llm_cost_middleware.cli.app import app
from llm_cost_middleware.simulator import Answer, Simulator

ITEMS = ["Summarise: " + "The shipment left the harbour. " * 30 + str(number) for number in range(12)]


@pytest.fixture(scope="module")
def sim():
    with Simulator(responder=lambda _: Answer("brief", output_tokens=60)) as simulator:
        yield simulator


@pytest.fixture
def client(sim):
    sim.reset()
    with anthropic.Anthropic(base_url=sim.anthropic_url, api_key="k") as client:
        yield client


def _pipeline(limit, url="memory://"):
    return CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": limit}], ledger={"url": url}))


def _spent(sim):
    return sim.bill.total_nanousd / 1e9


def test_an_expectation_follows_the_answers_of_its_call_site(sim, client):
    with _pipeline("100") as pipeline:
        first = process_many(ITEMS, pipeline, CostTracker(None), client=client)
        spent = _spent(sim)
        second = process_many(ITEMS, pipeline, CostTracker(None), client=client)
    assert first.quote.with_history == 0
    assert second.quote.with_history == len(ITEMS)
    assert spent <= float(second.quote.expected) <= 1.5 * spent
    assert float(second.quote.bound) > 10 * spent, "each answer may be as long as its cap"
    assert second.quote.expected <= second.quote.bound


def test_another_process_expects_by_the_log_of_the_ledger(sim, client, tmp_path):
    url = f"sqlite:///{tmp_path}/ledger.db"
    with _pipeline("100", url) as pipeline:
        process_many(ITEMS, pipeline, CostTracker(None), client=client)
        spent = _spent(sim)
    with _pipeline("100", url) as pipeline:
        quote = process_many(ITEMS, pipeline, CostTracker(None), client=client).quote
    assert quote.with_history == len(ITEMS)
    assert spent <= float(quote.expected) <= 1.5 * spent


def test_a_pinned_model_is_expected_by_its_history_too(sim, client):
    from llm_cost_middleware.integrations.anthropic import wrap_anthropic

    body = {"model": "claude-sonnet-4-6", "messages": [{"role": "user", "content": ITEMS[0]}]}
    with _pipeline("100") as pipeline:
        wrap_anthropic(client, pipeline).messages.create(**body, max_tokens=4_000)
        rules = pipeline.decisions()[-1]
        request = _read(body, 4_000)
        quote = pipeline.quote([request] * 5)
    assert rules.target.model == "claude-sonnet-4-6"
    assert quote.with_history == 5
    assert quote.expected_nanousd <= 5 * sim.bill.total_nanousd * 1.5 < quote.bound_nanousd


def _read(body, cap):
    from llm_cost_middleware.providers import get_provider

    request = get_provider("anthropic").read_request({**body, "max_tokens": cap}, "messages")
    return request._replace(model_pinned=True)


def test_a_cap_is_quoted_and_sent(sim, client):
    with _pipeline("100") as pipeline:
        wide = process_many(ITEMS[:2], pipeline, CostTracker(None), client=client)
        capped = process_many(ITEMS[:2], pipeline, CostTracker(None), client=client, max_tokens=80)
    assert capped.quote.bound < wide.quote.bound
    assert [request.body["max_tokens"] for request in sim.requests][-2:] == [80, 80]


@pytest.mark.parametrize("wrong", [0, -5, 1.5, "many", True])
def test_a_cap_is_a_positive_whole_number(client, wrong):
    with pytest.raises(ConfigurationError, match="max_tokens"):
        process_many(ITEMS, CostConfig(), CostTracker(None), client=client, max_tokens=wrong)


def test_a_batch_that_is_expected_not_to_fit_is_refused_or_started_anyway(sim, client):
    with _pipeline("0.006") as pipeline:
        with pytest.raises(BudgetExceededError) as caught:
            process_many(ITEMS, pipeline, CostTracker(None), client=client)
        assert not sim.requests
        told = str(caught.value)
        assert "at most $" in told
        assert "anyway=True" in told
        assert "requested" in told
        batch = process_many(ITEMS, pipeline, CostTracker(None), client=client, anyway=True)
        balance = pipeline.ledger.balance("global")
    assert 0 < len(batch.done) <= len(ITEMS)
    assert len(batch.done) + len(batch.remaining) == len(ITEMS)
    assert balance.settled_nanousd == sim.bill.total_nanousd <= balance.limit_nanousd


async def test_the_asynchronous_form_takes_the_same(sim):
    sim.reset()
    async with anthropic.AsyncAnthropic(base_url=sim.anthropic_url, api_key="k") as client:
        with _pipeline("0.006") as pipeline:
            batch = await aprocess_many(
                ITEMS, pipeline, CostTracker(None), client=client, anyway=True, max_tokens=80, concurrency=3
            )
            assert pipeline.ledger.balance("global").settled_nanousd == sim.bill.total_nanousd
    assert batch.done


def test_estimate_takes_a_cap_and_the_history_of_a_call_site(sim, client, tmp_path, monkeypatch):
    import json

    from typer.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/ledger.db"
    with _pipeline("100", url) as pipeline:
        process_many(ITEMS, pipeline, CostTracker(None), client=client)
        site = pipeline.decisions()[-1].site
    body = {"model": "claude-haiku-4-5", "messages": [{"role": "user", "content": ITEMS[0]}]}
    (tmp_path / "batch.jsonl").write_text(json.dumps(body))

    def estimated(*options):
        done = CliRunner().invoke(app, ["estimate", "batch.jsonl", "--json", *options])
        assert done.exit_code == 0, done.output
        return json.loads(done.output)

    plain, capped = estimated(), estimated("--max-tokens", "100")
    assert float(capped["at_most_usd"]) < float(plain["at_most_usd"]) / 10
    by_site = estimated("--site", site, "--ledger", url)
    assert float(by_site["expected_usd"]) < float(plain["expected_usd"])
    missing = CliRunner().invoke(app, ["estimate", "batch.jsonl", "--site", "nowhere", "--ledger", url])
    assert missing.exit_code != 0
