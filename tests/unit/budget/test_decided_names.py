"""Names of scopes in decisions by hand are written as the services of a ledger write them, whoever decides."""

from __future__ import annotations

import time
from datetime import UTC

import pytest
from typer.testing import CliRunner

from llm_cost_middleware import AsyncLedger, Budget, BudgetExceededError, CostConfig, CostPipeline, Ledger
from llm_cost_middleware.cli.app import app
from llm_cost_middleware.errors import ConfigurationError, InvalidScopeError, ScopePausedError
from llm_cost_middleware.periods import coming_day

CASE = {"names": {"team": ["Search", "Café"]}, "normalise": "case"}
SEARCH = "team:search"


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def opened(url):
    with CostPipeline(CostConfig(attribution=CASE, ledger={"url": url})) as pipeline:
        yield pipeline


def cli(*words):
    return CliRunner().invoke(app, words, catch_exceptions=False).output


def by_pipeline(pipeline, url, verb, *words):
    return getattr(pipeline.ledger, verb)(*words)


def by_ledger_alone(pipeline, url, verb, *words):
    with Ledger.open(url) as ledger:
        return getattr(ledger, verb)(*words)


def by_command(pipeline, url, verb, *words):
    given = [f"{word}" for word in words]
    if verb in {"pause", "resume"}:
        return cli(verb, *given, "--ledger", url)
    return cli("budgets", "--ledger", url, verb.removesuffix("_budget"), *given)


HANDS = [by_pipeline, by_ledger_alone, by_command]


@pytest.mark.parametrize("decide", HANDS)
@pytest.mark.parametrize("name", ["team:Search", "team:\uff33EARCH", SEARCH])
def test_every_verb_reaches_the_scope_that_calls_have(opened, url, decide, name):
    ledger = opened.ledger
    decide(opened, url, "pause", name)
    with pytest.raises(ScopePausedError):
        ledger.reserve("0.01", [SEARCH])
    assert [pause.scope for pause in ledger.pauses()] == [SEARCH]
    assert decide(opened, url, "resume", name)
    assert ledger.pauses() == ()
    decide(opened, url, "set_budget", name, 1)
    with pytest.raises(BudgetExceededError):
        ledger.reserve("1.01", [SEARCH])
    decide(opened, url, "raise_budget", name, 2)
    ledger.void(ledger.reserve("1.01", [SEARCH]).id)
    assert decide(opened, url, "remove_budget", name)
    ledger.reserve("5", [SEARCH])
    assert ledger.budgets() == ()


async def test_the_asynchronous_ledger_writes_them_too(opened, url):
    ledger = AsyncLedger.open(url)
    (made,) = await ledger.set_budget(Budget("team:Search", 1, reserve={"team:CAFÉ": "0.5"}))
    assert (made.scope, made.shares[0][0]) == (SEARCH, "team:caf%C3%A9")
    (pause,) = await ledger.pause("team:Search")
    assert pause.scope == SEARCH
    await ledger.aclose()


def test_where_services_write_a_name_in_two_ways_both_are_stopped(opened, url):
    other = CostConfig(attribution={**CASE, "normalise": "unicode"}, ledger={"url": url})
    with CostPipeline(other) as second:
        second.ledger.pause("team:Search")
        for scope in ("team:Search", SEARCH):
            with pytest.raises(ScopePausedError):
                second.ledger.reserve("0.01", [scope])
        assert second.ledger.resume("team:Search")
        assert second.ledger.pauses() == ()


def test_a_service_that_changes_its_rule_has_one(url):
    for how in ("case", "unicode"):
        named = CostConfig(attribution={**CASE, "normalise": how}, ledger={"url": url, "configuration": "shop"})
        CostPipeline(named).close()
    with Ledger.open(url) as ledger:
        assert [pause.scope for pause in ledger.pause("team:Search")] == ["team:Search"]
        CostPipeline(CostConfig(ledger={"url": url, "configuration": "shop"})).close()
        assert [pause.scope for pause in ledger.pause("team:\uff21DS")] == ["team:%EF%BC%A1DS"]


def test_what_was_paused_before_the_rule_was_known_is_resumed_as_it_was_named(url):
    with Ledger.open(url) as ledger:
        ledger.pause("team:Search")
        CostPipeline(CostConfig(attribution=CASE, ledger={"url": url})).close()
        assert ledger.resume("team:Search")
        assert ledger.pauses() == ()


def test_kinds_without_a_rule_stay_as_they_are(opened):
    assert [pause.scope for pause in opened.ledger.pause("user:aB")] == ["user:aB"]
    assert [pause.scope for pause in opened.ledger.pause("team:*")] == ["team:*"]


def test_the_error_of_a_call_names_the_pause_to_end(opened):
    opened.ledger.pause("team:*")
    with pytest.raises(ScopePausedError, match=r"team:search is paused.*resume 'team:\*'") as caught:
        opened.ledger.reserve("0.01", [SEARCH])
    assert (caught.value.scope, caught.value.paused) == (SEARCH, "team:*")
    assert opened.ledger.resume(caught.value.paused)


@pytest.mark.parametrize("word", ["tomorrow", "monday", " Today"])
def test_an_end_may_be_a_day_in_python_too(opened, word):
    begun = time.time()
    ends = {coming_day(word, now=begun, zone=UTC)}
    (pause,) = opened.ledger.pause("global", until=word)
    ends.add(coming_day(word, now=time.time(), zone=UTC))  # midnight may pass meanwhile
    assert pause.until / 1000 in ends


@pytest.mark.parametrize("scope", [None, 5, b"team:a", ["team:a"], "team:", "TEAM:a", "*", ""])
def test_what_is_no_scope_is_refused_by_every_verb(opened, scope):
    ledger = opened.ledger
    for verb in (
        ledger.pause, ledger.resume, ledger.remove_budget, lambda one: ledger.raise_budget(one, 5),
        lambda one: ledger.check_paused([one]),
    ):  # fmt: skip
        with pytest.raises(InvalidScopeError):
            verb(scope)


@pytest.mark.parametrize("reason", [5, b"x", ["x"], "x" * 501])
def test_what_is_no_reason_is_refused(opened, reason):
    with pytest.raises(ConfigurationError, match="reason"):
        opened.ledger.pause("global", reason=reason)
    assert opened.ledger.pauses() == ()


@pytest.mark.parametrize(
    ("given", "told"), [("a\n b\x1b[31m", "a b [31m"), ("\ud800 x", "x"), (None, ""), ("héé 🙂", "héé 🙂")]
)
def test_a_reason_is_one_line_that_any_screen_can_show(opened, given, told):
    assert opened.ledger.pause("global", reason=given)[0].reason == told


@pytest.mark.parametrize("rules", [None, "case", {"team": "loud"}, {"Team": "case"}, {"team": None}])
def test_what_is_no_rule_of_names_is_refused(opened, rules):
    with pytest.raises(ConfigurationError):
        opened.ledger.learn_names("service", rules)
