"""Who is named, and who is paused, at every door: what may not be spent never leaves.

Each door is tried without a team, with one that is misspelt, with one in another spelling, with one that is paused, and
with one that is known. The provider's own count of requests decides what left.
"""

from __future__ import annotations

import pytest
from spending_doors import DOORS, SAMPLE, all_doors, tried
from watching import Watch

from llm_cost_middleware import CostConfig, CostPipeline, cost_context
from llm_cost_middleware.errors import AttributionError, ScopePausedError
from llm_cost_middleware.events import Unattributed
from llm_cost_middleware.simulator import fill

pytestmark = pytest.mark.litellm
RULE = {"require": ["team"], "names": {"team": ["search", "svc-*", "Café"]}}
DAY = [{"scope": "team:*", "limit": 1, "window": "day"}]


@pytest.fixture
def make(sim, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    sim.responder = fill
    opened = []

    def made(watch=(), **config):
        providers = {"openai": {"base_url": sim.openai_url}, "anthropic": {"base_url": sim.anthropic_url}}
        pipeline = CostPipeline(
            CostConfig(**{"attribution": RULE, "budgets": DAY, "providers": providers, **config}), observers=watch
        )
        opened.append(pipeline)
        return pipeline

    yield made
    for pipeline in opened:
        pipeline.close()


@pytest.fixture
def doors(sim, clients):
    def of(pipeline):
        return all_doors(pipeline, sim, clients)

    return of


@pytest.mark.parametrize("name", DOORS)
def test_what_names_no_known_team_or_a_paused_one_never_leaves(name, make, doors, sim):
    watch = Watch()
    pipeline = make([watch])
    door = doors(pipeline)[name]
    error, sent = tried(door, sim)
    assert (isinstance(error, AttributionError), sent) == (True, 0), repr(error)
    for wrong in ("serach", "SEARCH"):
        with cost_context(team=wrong):
            error, sent = tried(door, sim)
        assert (isinstance(error, AttributionError), sent) == (True, 0), repr(error)
        assert error.nearest == ("search",)
    assert {(event.kind, event.reason) for event in watch.of(Unattributed)} == {
        ("team", "missing"),
        ("team", "unknown"),
    }
    assert list(pipeline.ledger.rows()) == []

    pipeline.ledger.pause("team:search", reason="incident 7")
    with cost_context(team="search"):
        error, sent = tried(door, sim)
    assert (isinstance(error, ScopePausedError), sent) == (True, 0), repr(error)
    assert "incident 7" in str(error)
    assert list(pipeline.ledger.rows()) == []
    pipeline.ledger.resume("team:search")
    with cost_context(team="search"):
        error, sent = tried(door, sim)
    assert (error, sent) == (None, 1)
    assert {scope for row in pipeline.ledger.rows() for scope in row.scopes if scope.startswith("team:")} == {
        "team:search"
    }


@pytest.mark.parametrize("on_missing", ["warn", "team:unassigned"])
@pytest.mark.parametrize("name", SAMPLE)
def test_what_is_let_through_is_booked_as_unassigned(name, on_missing, make, doors, sim):
    watch = Watch()
    pipeline = make([watch], attribution={**RULE, "on_missing": on_missing})
    error, sent = tried(doors(pipeline)[name], sim)
    assert (error, sent) == (None, 1)
    assert pipeline.ledger.balance("team:unassigned").limit == 1, "a budget of each team is one of nobody, too"
    assert {"team:unassigned"} == {s for row in pipeline.ledger.rows() for s in row.scopes if s.startswith("team:")}
    assert bool(watch.of(Unattributed)) == (on_missing == "warn")


@pytest.mark.parametrize("name", SAMPLE)
def test_an_observer_sends_everything_and_tells_it(name, make, doors, sim):
    watch = Watch()
    pipeline = make([watch], mode="observe")
    door = doors(pipeline)[name]
    error, sent = tried(door, sim)
    assert (error, sent) == (None, 1)
    assert [(event.kind, event.enforced) for event in watch.of(Unattributed)] == [("team", False)], "told once"


@pytest.mark.parametrize(
    ("rule", "written", "booked"),
    [
        ({}, "Cafe\u0301", "team:Caf%C3%A9"),
        ({}, "svc-billing", "team:svc-billing"),
        ({"normalise": "case"}, "SEARCH", "team:search"),
        ({"normalise": "case"}, "ＣＡＦÉ", "team:caf%C3%A9"),
    ],
)
def test_names_are_written_by_the_rule_in_calls_and_budgets_alike(rule, written, booked, make, doors, sim):
    limited = [{"scope": f"team:{written}", "limit": 1, "window": "day"}]
    pipeline = make(attribution={**RULE, **rule}, budgets=limited)
    with cost_context(team=written):
        error, sent = tried(doors(pipeline)["openai chat"], sim)
    assert (error, sent) == (None, 1)
    assert pipeline.ledger.balance(booked).limit == 1
    assert pipeline.ledger.balance(booked).settled > 0


def test_what_a_logger_reports_is_booked_as_unassigned(make, sim):
    import litellm

    from llm_cost_middleware.integrations.litellm import CostLogger

    pipeline = make()
    logger = CostLogger(pipeline)
    with cost_context(team="serach"):
        logger.log_success_event(
            {"model": "gpt-5-mini", "custom_llm_provider": "openai", "litellm_call_id": "a", "litellm_params": {}},
            litellm.ModelResponse(model="gpt-5-mini", usage=litellm.Usage(prompt_tokens=5, completion_tokens=5)),
            None, None,
        )  # fmt: skip
    assert pipeline.ledger.balance("team:unassigned").settled > 0


def test_a_budget_that_no_call_can_be_for_is_refused(make):
    with pytest.raises(ValueError, match="did you mean 'search'"):
        make(budgets=[{"scope": "team:serach", "limit": 1}])


def test_a_quote_needs_no_name(make):
    from llm_cost_middleware.request import CallRequest, Message, Part

    request = CallRequest("openai", "gpt-5-mini", (Message("user", (Part("text", "hi"),)),), max_tokens=5)
    assert make().quote([request]).calls == 1
