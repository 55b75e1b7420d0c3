"""The newest decision about a budget holds: configurations, changes by hand, raises, in every order."""

import pytest

from llm_cost_middleware import (
    AsyncLedger,
    Budget,
    BudgetExceededError,
    ConfigurationError,
    CostConfig,
    CostPipeline,
    Ledger,
)
from llm_cost_middleware.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock(1_790_000_000)


@pytest.fixture
def ledger(clock):
    with Ledger.open("memory://", clock=clock) as opened:
        yield opened


def limits(ledger):
    return {f"{budget.scope} {budget.window}": float(budget.limit) for budget in ledger.budgets()}


def told(decisions):
    return [(decision.action, decision.scope) for decision in decisions]


A10, A20, B5 = Budget("team:a", 10), Budget("team:a", 20), Budget("team:b", 5)


def test_a_budget_says_where_it_comes_from_and_since_when(ledger, clock):
    ledger.configure_budgets([A10])
    clock.advance(60)
    ledger.set_budget(B5)
    first, second = ledger.budget_lives()
    assert (first.budget, first.source, first.state) == (A10, "configuration:default", "active")
    assert (second.source, second.since - first.since) == ("managed", 60)


def test_a_budget_whose_line_is_gone_is_retired_and_says_so(ledger):
    ledger.configure_budgets([A10, B5])
    assert told(ledger.configure_budgets([B5])) == [("retired", "team:a")]
    assert limits(ledger) == {"team:b none": 5}
    assert [life.state for life in ledger.budget_lives()] == ["retired", "active"]
    assert ledger.configure_budgets([B5]) == ()


def test_a_change_by_hand_stands_over_the_line_that_was_there_before(ledger):
    ledger.configure_budgets([A10])
    ledger.set_budget(A20)
    assert told(ledger.configure_budgets([A10])) == [("kept", "team:a")]
    assert told(ledger.configure_budgets([A10, B5])) == [("set", "team:b"), ("kept", "team:a")]
    assert limits(ledger) == {"team:a none": 20, "team:b none": 5}
    assert told(ledger.configure_budgets([Budget("team:a", 12), B5])) == [("set", "team:a")], "a new line is newer"
    assert ledger.remove_budget("team:a")
    assert told(ledger.configure_budgets([Budget("team:a", 12), B5])) == [("kept", "team:a")]
    assert limits(ledger) == {"team:b none": 5}


def test_a_managed_budget_outlives_its_line(ledger):
    ledger.configure_budgets([A10])
    ledger.set_budget(A20)
    ledger.configure_budgets([])
    assert limits(ledger) == {"team:a none": 20}


@pytest.mark.parametrize("versions", [(1, 2), (0, 0)])
def test_an_older_configuration_undoes_nothing(ledger, versions):
    older, newer = versions
    ledger.configure_budgets([A20], version=older)
    ledger.configure_budgets([A10], version=newer)
    assert told(ledger.configure_budgets([A20], version=older)) == [("superseded", "")]
    assert limits(ledger) == {"team:a none": 10}


def test_an_older_version_is_older_even_if_it_was_never_seen(ledger):
    ledger.configure_budgets([A10], version=2)
    assert told(ledger.configure_budgets([A20, B5], version=1, written_at=2e9)) == [("superseded", "")]
    assert limits(ledger) == {"team:a none": 10}


def test_a_file_that_is_changed_back_is_newer(ledger, clock):
    ledger.configure_budgets([A10])
    ledger.configure_budgets([A20])
    assert told(ledger.configure_budgets([A10], written_at=clock.now() - 1)) == [("superseded", "")]
    assert told(ledger.configure_budgets([A10], written_at=clock.now() + 1)) == [("set", "team:a")]
    assert told(ledger.configure_budgets([A20])) == [("superseded", "")], "what it replaced is old again"
    assert limits(ledger) == {"team:a none": 10}


def test_configurations_of_other_names_are_left_alone(ledger):
    ledger.configure_budgets([A10], name="search")
    ledger.configure_budgets([B5], name="ads")
    ledger.configure_budgets([], name="ads")
    assert limits(ledger) == {"team:a none": 10}
    ledger.configure_budgets([A20], name="ads")
    ledger.configure_budgets([B5], name="ads", version=1)
    ledger.remove_budget("team:b")
    assert limits(ledger) == {"team:a none": 10}, "the line of the other one is still there"


def unnamed(ledger, budgets, **more):
    return told(ledger.configure_budgets(budgets, name=None, **more))


def test_without_a_name_one_that_has_nothing_in_common_ends_nothing(ledger):
    unnamed(ledger, [A10])
    assert unnamed(ledger, [B5]) == [("set", "team:b"), ("beside", "team:a")]
    assert unnamed(ledger, [A10]) == []
    assert unnamed(ledger, [B5]) == []
    assert limits(ledger) == {"team:a none": 10, "team:b none": 5}
    assert unnamed(ledger, [A20, Budget("team:c", 1)]) == [("set", "team:a"), ("set", "team:c")]
    assert unnamed(ledger, [A20]) == [("retired", "team:c")]
    assert unnamed(ledger, [Budget("team:b", 6)]) == [("set", "team:b")]
    assert limits(ledger) == {"team:a none": 20, "team:b none": 6}


def test_without_a_name_none_ends_those_of_the_only_one_there_is(ledger):
    unnamed(ledger, [A10])
    assert unnamed(ledger, []) == [("retired", "team:a")]
    unnamed(ledger, [A20])
    unnamed(ledger, [B5])
    assert unnamed(ledger, []) == []
    assert limits(ledger) == {"team:a none": 20, "team:b none": 5}


def test_without_a_name_a_file_follows_on_itself(ledger):
    unnamed(ledger, [A10], origin="one")
    assert unnamed(ledger, [], origin="two") == []
    assert unnamed(ledger, [B5], origin="two") == [("set", "team:b"), ("beside", "team:a")]
    assert unnamed(ledger, [Budget("team:c", 1)], origin="one") == [("set", "team:c"), ("retired", "team:a")]
    assert unnamed(ledger, [], origin="one") == [("retired", "team:c")]
    assert limits(ledger) == {"team:b none": 5}


def test_without_a_name_two_files_of_a_machine_are_two_services(ledger):
    """What they have in common is decided by the newest line; what only one of them has ends by no other."""
    month = Budget("global", 100, "month")
    unnamed(ledger, [month, A10], origin="m1/search")
    told_of = unnamed(ledger, [Budget("global", 90, "month"), B5], origin="m1/ads")
    assert told_of[:2] == [("set", "global"), ("set", "team:b")]
    assert limits(ledger) == {"global month": 90, "team:a none": 10, "team:b none": 5}
    for _ in range(2):  # each starts again with the same file
        assert unnamed(ledger, [month, A10], origin="m1/search") == [("kept", "global")]
        assert unnamed(ledger, [Budget("global", 90, "month"), B5], origin="m1/ads") == []
    assert unnamed(ledger, [B5], origin="m1/ads") == [("set", "global")], "the other one still has it, and no higher"
    assert limits(ledger) == {"global month": 90, "team:a none": 10, "team:b none": 5}
    assert unnamed(ledger, [A10], origin="m2/search") == [("retired", "global")], "another container of the same one"
    assert limits(ledger) == {"team:a none": 10, "team:b none": 5}


def test_a_file_that_says_what_another_one_said_before_ends_nothing(ledger, clock):
    """An old content is old for the service that had it."""
    unnamed(ledger, [A10], origin="m1/search", written_at=clock.now())
    unnamed(ledger, [Budget("team:a", 9), B5], origin="m1/search", written_at=clock.now())
    clock.advance(9)
    unnamed(ledger, [A10], origin="m1/ads", written_at=clock.now())
    assert limits(ledger) == {"team:a none": 10, "team:b none": 5}, "the newest line of the one, all of the other"
    assert unnamed(ledger, [A10], origin="m1/more") == [], "and there is nothing to decide where it says the same"


def test_an_old_content_stays_old_whatever_came_since(ledger, clock):
    """A process that starts with a file of long ago brings back nothing."""
    for limit in range(150, 0, -1):
        ledger.configure_budgets([Budget("team:a", limit)], written_at=clock.now())
        clock.advance(1)
    for limit in (150, 100, 2):
        for written_at in (None, 1_790_000_000):
            assert told(ledger.configure_budgets([Budget("team:a", limit)], written_at=written_at)) == [
                ("superseded", "")
            ]
    assert limits(ledger) == {"team:a none": 1}


def test_a_content_that_was_forgotten_is_old_where_its_time_is_known(ledger, clock, monkeypatch):
    monkeypatch.setattr("llm_cost_middleware.budget.rules.configurations._SEEN", 5)
    for limit in range(9, 0, -1):
        clock.advance(1)
        ledger.configure_budgets([Budget("team:a", limit)], written_at=clock.now())
    assert told(ledger.configure_budgets([Budget("team:a", 9)], written_at=clock.now() - 8)) == [("superseded", "")]
    assert told(ledger.configure_budgets([Budget("team:a", 9)], written_at=clock.now() + 1)) == [("set", "team:a")]


def test_contents_that_an_earlier_version_noted_are_known(ledger, clock):
    """Its fingerprints are longer."""
    import json
    from hashlib import blake2b

    ledger.configure_budgets([A20])
    old = ledger.budget_lives()[0]
    ledger.configure_budgets([A10])
    backend = ledger.backend
    found = json.loads(backend.register())
    facts = {"team:a none": {"limit": int(old.budget.limit_nanousd), "timezone": "UTC", "warn_at": 0.8}}
    whole = blake2b(json.dumps([0, facts], sort_keys=True).encode(), digest_size=12).hexdigest()
    known = found["configurations"]["default"]
    assert whole.startswith(known["seen"][0])
    known["seen"][0] = whole
    backend._state.register = json.dumps(found).encode()
    assert told(ledger.configure_budgets([A20])) == [("superseded", "")]


def test_configurations_without_a_name_are_bounded(ledger):
    for number in range(150):
        unnamed(ledger, [Budget(f"run:{number}", 1)])
    assert len(limits(ledger)) == 150, "what was set stays"
    assert len({life.source for life in ledger.budget_lives()}) == 100


def test_a_raise_ends_with_its_time_or_with_a_newer_decision(ledger, clock):
    ledger.configure_budgets([A10])
    life = ledger.raise_budget("team:a", 30, until=clock.now() + 60)
    assert (life.raised_to.usd, life.raised_until, life.budget) == (30, clock.now() + 60, A10)
    assert ledger.balance("team:a").limit == 30
    ledger.configure_budgets([A10])
    assert ledger.balance("team:a").limit == 30, "the same line undoes nothing"
    clock.advance(60)
    assert ledger.balance("team:a").limit == 10
    for newer in (
        lambda: ledger.set_budget(A10),
        lambda: ledger.configure_budgets([Budget("team:a", 12)]),
        lambda: ledger.remove_budget("team:a"),
    ):
        ledger.raise_budget("team:a", 30, until=clock.now() + 60)
        newer()
        assert ledger.balance("team:a").limit in (10, 12, None)
    assert ledger.budget_lives()[0].raised_to is None


def test_a_raise_without_an_end_is_a_managed_limit(ledger):
    ledger.configure_budgets([Budget("team:a", 10, "day", warn_at=None, reserve={"tag:x": 0.5})])
    ledger.raise_budget("team:a", 15, "day")
    (life,) = ledger.budget_lives()
    assert (life.budget, life.source) == (Budget("team:a", 15, "day", warn_at=None, reserve={"tag:x": 0.5}), "managed")


@pytest.mark.parametrize(("scope", "limit", "until"), [("team:b", 20, None), ("team:a", 10, None), ("team:a", 20, 5.0)])
def test_what_cannot_be_raised_is_refused(ledger, scope, limit, until):
    ledger.configure_budgets([A10])
    with pytest.raises(ConfigurationError):
        ledger.raise_budget(scope, limit, until=until)
    assert limits(ledger) == {"team:a none": 10}


def test_a_budget_from_before_the_register_counts_as_managed(ledger):
    ledger.backend.set_budget(A10)  # as an earlier version of the package does
    assert [(life.budget, life.source) for life in ledger.budget_lives()] == [(A10, "managed")]
    ledger.configure_budgets([B5])
    assert limits(ledger) == {"team:a none": 10, "team:b none": 5}


def test_the_history_tells_every_decision(ledger, clock):
    ledger.configure_budgets([A10])
    ledger.raise_budget("team:a", 30, until=clock.now() + 60)
    ledger.pause("team:a", reason="incident")
    ledger.resume("team:a")
    ledger.remove_budget("team:a")
    assert [decision.action for decision in ledger.budget_history()] == [
        "set",
        "raised",
        "paused",
        "resumed",
        "removed",
    ]


async def test_the_asynchronous_ledger_decides_too(clock):
    ledger = AsyncLedger.open("memory://", clock=clock)
    await ledger.set_budget(A10)
    await ledger.raise_budget("team:a", 30, until=clock.now() + 60)
    await ledger.pause("team:a")
    assert [pause.scope for pause in await ledger.pauses()] == ["team:a"]
    assert await ledger.remove_budget("team:a")
    assert len(await ledger.budget_history()) == 4
    await ledger.aclose()


def test_who_only_reads_a_ledger_or_has_other_budgets_switches_off_no_cap(tmp_path):
    url = f"sqlite:///{tmp_path}/l.db"
    capped = {"ledger": url, "budgets": [{"scope": "global", "limit": "0.01", "window": "day"}]}
    empty, with_budget = tmp_path / "empty.toml", tmp_path / "with.toml"
    empty.write_text(f'[ledger]\nurl = "{url}"\n')
    with_budget.write_text(f'[ledger]\nurl = "{url}"\n[[budgets]]\nscope = "team:*"\nlimit = "1"\n')
    with CostPipeline(capped) as running:
        for other in ({"ledger": url}, CostConfig(ledger={"url": url}), empty, with_budget, capped):
            with CostPipeline(other) as second:
                second.report("model")
            with pytest.raises(BudgetExceededError):
                running.ledger.reserve("0.02", ["team:a"])
        with_budget.write_text(empty.read_text())
        CostPipeline(with_budget).close()
        assert limits(running.ledger) == {"global day": 0.01}, "what a file had ends with the file's own word"
    CostPipeline(capped | {"budgets": []}).close()
    with Ledger.open(url) as ledger:
        assert limits(ledger) == {}


def test_a_line_that_is_left_over_brings_back_no_higher_limit(ledger):
    ledger.configure_budgets([Budget("team:x", 100)], name="A")
    ledger.set_budget(Budget("team:x", 2))
    ledger.configure_budgets([Budget("team:x", 3)], name="B")
    ledger.configure_budgets([], name="B")
    assert limits(ledger) == {"team:x none": 3}


def test_a_name_is_a_name_whatever_it_is(ledger):
    for name in ("default", "default-eu", "unnamed-eu"):
        ledger.configure_budgets([A10, B5], name=name)
        unnamed(ledger, [Budget("team:a", 11)])
        assert set(limits(ledger)) == {"team:a none", "team:b none"}, name


def test_a_raise_that_would_lower_what_stands_is_refused(ledger, clock):
    ledger.set_budget(Budget("team:a", "0.25"))
    later = clock.now() + 3_600
    ledger.raise_budget("team:a", "1", until=later)
    for until in (None, later):
        with pytest.raises(ConfigurationError, match="would lower it: it is raised to"):
            ledger.raise_budget("team:a", "0.5", until=until)
    ledger.raise_budget("team:a", "1", until=later + 60)
    assert ledger.balance("team:a").limit == 1
