"""Reports: every dimension adds up to the ledger's total, from SQL and from a stream of rows alike."""

import json
import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_cost_middleware import ConfigurationError, Ledger
from llm_cost_middleware.budget.backend import SupportsBookings
from llm_cost_middleware.budget.rules import DAY
from llm_cost_middleware.budget.rules.bookings import bookings
from llm_cost_middleware.metering import MemoSummary, encode_memo
from llm_cost_middleware.metering.refused import REFUSAL, refusal_line
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.reports import DIMENSIONS, OVER, Query, make_report
from llm_cost_middleware.reports.folding import bookings_of
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

START = datetime(2026, 10, 20, tzinfo=UTC).timestamp()
MODELS = (ModelRef("openai", "gpt-5-mini"), ModelRef("anthropic", "claude-haiku-4-5"), ModelRef("openai", "no-price"))
CATALOGUE = Catalogue()
EVERY = (*(name for name in DIMENSIONS if name not in OVER), "project", "nobody")


def memo(rng, number):
    if rng.random() < 0.1:
        return rng.choice((b"", b"not json", b'{"v":99,"call":"x","n":1}'))
    target = rng.choice(MODELS)
    usage = TokenUsage(uncached_input=rng.randrange(2_000), cache_read=rng.choice((0, 900)), output=rng.randrange(500))
    if rng.random() < 0.1:
        usage = replace(usage, cache_write_5m=1, cache_write_1h=2, web_searches=3)  # more counts than are tallied
    items = tuple(BilledItem(usage) for _ in range(rng.choice((1, 1, 2))))
    tier = rng.choice((None, "default", "flex"))
    reading = UsageReport(items=items, model=target.model, complete=True, service_tier=tier)
    words = {"tier": rng.choice(("", "small")), "asked": rng.choice(("", "claude-opus-4-5", "smart"))}
    found = encode_memo(call_id=f"call-{number}", attempt=1, target=target, reading=reading, **words)
    return bytes(found) if rng.random() < 0.3 else found  # as a process of an earlier version writes it


def scopes(rng):
    found = [f"team:{name}" for name in rng.sample(("a", "b", "c%20d"), rng.choice((0, 1, 1, 1, 2)))]
    found += [f"tag:{name}" for name in rng.sample(("etl", "nightly", "x"), rng.randrange(4))]
    return [*found, *(["user:u1"] if rng.random() < 0.5 else []), *(["project:p"] if rng.random() < 0.2 else [])]


def fill(ledger, clock, seed, calls=40, archive=True):
    """Calls that end in every way there is, on a clock that goes on and now and then back a little."""
    rng = random.Random(seed)
    for number in range(calls):
        clock.advance(rng.choice((0, 1, 60, 3_600, 40_000)))
        id_, held, paid = f"call-{number}", scopes(rng), NanoUSD(rng.randrange(1, 10**7))
        if rng.random() < 0.15:
            ledger.book(
                paid, held, id=id_, memo=memo(rng, number), status=rng.choice(("exact", "estimated", "unpriced"))
            )
            continue
        ledger.reserve(NanoUSD(10**7), held, id=id_, ttl=100, memo=memo(rng, number))
        end = rng.choice(("settle", "settle", "settle", "void", "open", "expire", "late"))
        if end in {"expire", "late"}:
            clock.advance(200)
            ledger.sweep()
        if end in {"settle", "late"}:
            ledger.settle(id_, paid, memo=memo(rng, number), status=rng.choice(("exact", "estimated", "unconfirmed")))
        elif end == "void":
            ledger.void(id_)
        if end in {"settle", "late", "expire"} and rng.random() < 0.3:
            clock.advance(rng.choice((10, 100_000)))
            ledger.reconcile(id_, NanoUSD(rng.randrange(10**7)), memo=rng.choice((b"", memo(rng, number))))
        if rng.random() < 0.1 and ledger.journal is not None:
            line = refusal_line(
                call_id=id_, target=MODELS[0], scopes=("global", *held), scope="global", wanted=paid, tier="small"
            )
            ledger.journal.append(REFUSAL, id_, clock.now(), line)
    if archive:
        clock.advance(90 * 86_400)
        cut = clock.now() - rng.choice((91, 89, 1)) * 86_400
        ledger.archive(cut, MemoSummary(), keep=rng.random() < 0.5 and ledger.url.startswith("sqlite"))


def ask(ledger, by, **rest):
    return make_report(ledger, Query.read(by, now=lambda: START, **rest), catalogue=CATALOGUE)


def by_team(found):
    """Ids and money by what a query by team asks for."""
    sums = Counter()
    for booking in found:
        teams = " ".join(scope for scope in booking.scopes.split(" ") if scope.startswith("team:"))
        sums[teams, booking.status, booking.at // DAY] += booking.amount
        sums[teams, booking.status, booking.at // DAY, "ids"] += booking.ids
    return +sums


def lines_of(report):
    return {row.keys: row.measures() for row in report}


def add_up(report):
    """The rows less what stands in several of them, measure by measure."""
    whole = report.total.measures()
    for name, total in whole.items():
        known = [row.measures()[name] for row in report if row.measures()[name] is not None]
        shared = report.shared.measures()[name]
        if total is None:
            assert not known
        elif name.endswith(("saving_usd", "list_usd")):  # rounded once a line
            assert abs(sum(known) - (shared or 0) - total) <= (len(known) + 1) * 10**-9
        else:
            assert sum(known) - (shared or 0) == total, name
    return whole


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def books(request, tmp_path_factory):
    """Opens a ledger that nobody has written to yet."""
    if request.param == "redis":
        url = next(iter(request.getfixturevalue("redis_servers").values())).url
    elif request.param == "postgres":
        url = request.getfixturevalue("postgres_server").url

    def opened(clock):
        tenant = f"books{next(_tenants)}"
        if request.param != "sqlite":
            return Ledger.open(url, clock=clock, tenant=tenant)
        return Ledger.open(
            f"sqlite:///{tmp_path_factory.mktemp('books') / 'ledger.db'}", clock=clock, durability="normal"
        )

    return opened


@pytest.fixture
def added_up(books, request):
    """The same, of the storages that add up by SQL."""
    if request.node.callspec.params["books"] == "redis":
        pytest.skip("Redis streams its rows")
    return books


_tenants = count()


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_every_dimension_adds_up_to_the_ledger(books, seed):
    clock = FakeClock(START)
    with books(clock) as ledger:
        fill(ledger, clock, seed)
        booked = ledger.balance("global").settled
        wholes = [add_up(ask(ledger, by)) for by in EVERY]
        wholes += [add_up(ask(ledger, "team,model", over=over, timezone="Europe/Vienna")) for over in OVER]
        wholes += [add_up(ask(ledger, "user,tag", top=2)), add_up(ask(ledger, "tag", savings=False))]
        assert {whole["cost_usd"] for whole in wholes} == {booked}
        assert len({json.dumps(whole, default=str) for whole in wholes[:-1]}) == 1


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_sql_and_a_stream_of_rows_give_one_answer(added_up, seed):
    clocks = FakeClock(START), FakeClock(START)
    with (
        added_up(clocks[0]) as file,
        Ledger.open("memory://", clock=clocks[1]) as memory,
    ):
        assert isinstance(file.backend, SupportsBookings)
        assert not isinstance(memory.backend, SupportsBookings)
        for ledger, clock in zip((file, memory), clocks, strict=True):
            fill(ledger, clock, seed, archive=False)
        for since, until in ((None, None), (START + 90_000, None), (START + 90_000, START + 500_000)):
            query = Query.read("team", since=since, until=until, now=lambda: START)
            from_ms, to_ms = (None if moment is None else round(moment * 1000) for moment in (since, until))
            streamed = bookings(lambda: file.backend.rows(None, None), from_ms, to_ms)
            added = list(bookings_of(file, query.since, query.until, query.sums))
            assert by_team(streamed) == by_team(added)
            assert len({(b.scopes, b.status, b.memo, b.at // DAY) for b in added if b.counts}) == sum(
                bool(booking.counts) for booking in added
            )
            for by in EVERY if file.url.startswith("sqlite") else EVERY[::4]:  # a server takes longer
                asked = {"since": since, "until": until, "over": "day"}
                assert lines_of(ask(file, by, **asked)) == lines_of(ask(memory, by, **asked))
                assert lines_of(ask(file, by, savings=False, **asked)) == lines_of(
                    ask(memory, by, savings=False, **asked)
                )


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    zone=st.sampled_from(("Europe/Vienna", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns", "local")),
)
def test_sql_knows_the_days_and_hours_of_every_time_zone(added_up, seed, zone):
    clocks = FakeClock(START), FakeClock(START)
    with (
        added_up(clocks[0]) as file,
        Ledger.open("memory://", clock=clocks[1]) as memory,
    ):
        for ledger, clock in zip((file, memory), clocks, strict=True):
            fill(ledger, clock, seed, calls=60, archive=False)
        for over in OVER:
            for by in ("", "team,model", "tag"):
                asked = {"over": over, "timezone": zone, "savings": over != "hour"}
                assert lines_of(ask(file, by, **asked)) == lines_of(ask(memory, by, **asked))


def test_a_million_calls_are_few_sums(tmp_path):
    """Calls of one kind come from SQL as one booking, whoever made them; a call of another is one of its own."""
    clock = FakeClock(START)
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}", clock=clock, durability="normal") as ledger:
        reading = UsageReport(items=(BilledItem(TokenUsage(1, output=2)),), model="gpt-5-mini", complete=True)
        for number in range(50):
            told = encode_memo(call_id=f"call-{number}", attempt=1, target=MODELS[0], reading=reading)
            ledger.book("1", [f"user:u{number}"], id=str(number), memo=told)
        ledger.book("1", ["user:x"], id="odd", memo=b"not json")
        found = list(bookings_of(ledger, None, None, Query.read("model", now=lambda: START).sums))
        assert sorted(booking.ids for booking in found) == [1, 50]
        assert max(found, key=lambda booking: booking.ids).counts[:2] == (50, 100)


def test_a_period_counts_what_was_reserved_in_it_by_its_own_time_zone():
    clock = FakeClock(datetime(2026, 10, 24, 21, 30, tzinfo=UTC).timestamp())  # 23:30 in Vienna
    with Ledger.open("memory://", clock=clock) as ledger:
        for hours in (0, 1, 24, 25, 26):
            ledger.book("1", ["team:a"], id=f"at-{hours}")
            clock.advance(3_600 if hours in {0, 24, 25} else 23 * 3_600)
        days = {row.keys[0]: row.cost_usd for row in ask(ledger, "", over="day", timezone=ZoneInfo("Europe/Vienna"))}
        assert days == {"2026-10-24": 1, "2026-10-25": 3, "2026-10-26": 1}  # the 25th has 25 hours
        asked = ask(ledger, "team", during="2026-10-25", timezone="Europe/Vienna")
        assert asked.spend() == {"a": 3}
        assert asked.until - asked.since == 25 * 3_600


def test_filters_choose_by_name_glob_and_absence():
    with Ledger.open("memory://") as ledger:
        for team, tags in (("ads", ["etl"]), ("ads-eu", []), (None, ["etl", "x"])):
            ledger.book("1", [*([f"team:{team}"] if team else []), *(f"tag:{tag}" for tag in tags)], id=f"{team}")
        for where, wanted in (
            ("team=ads", {"ads"}), ("team=ads*", {"ads", "ads-eu"}), ("team!=ads", {"ads-eu", None}), ("team=", {None}),
            ("tag=etl", {"ads", None}), ({"tag": ["x", "y"]}, {None}), (["tag=etl", "team=ads"], {"ads"}),
            ("team=ads,ads-eu", {"ads", "ads-eu"}), ({"team": None}, {None}),
        ):  # fmt: skip
            assert set(ask(ledger, "team", where=where).spend()) == wanted


def test_a_call_in_two_tags_stands_in_both_lines_and_once_in_the_total():
    with Ledger.open("memory://") as ledger:
        ledger.book("1", ["tag:etl", "tag:x"], id="both")
        ledger.book("2", ["tag:etl"], id="one")
        report = ask(ledger, "tag")
        assert report.spend() == {"etl": 3, "x": 1}
        assert report.total.cost_usd == 3
        assert report.shared.cost_usd == 1
        assert "counts it once" in report.notes[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"by": "teams"}, {"by": "Team"}, {"by": "day,hour"}, {"over": "fortnight"}, {"since": "recently"}, {"top": 0},
        {"where": "team"}, {"where": 5}, {"during": "7d", "since": "1d"}, {"since": "today", "until": "yesterday"},
        {"timezone": "+02:00"},
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused(wrong):
    with Ledger.open("memory://") as ledger, pytest.raises(ConfigurationError):
        ask(ledger, **({"by": "team"} | wrong))


def test_exports_are_exact_and_harmless(tmp_path):
    arrow = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    with Ledger.open("memory://") as ledger:
        ledger.book("0.000000001", ['team:=HYPERLINK("http://x")'], id="1")
        ledger.book("2", ["team:+1", "user:%1B[31mred"], id="2")
        report = ask(ledger, "team,user")
        cells = [line.split(",")[0].strip('"') for line in report.to_csv().splitlines()]
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
        assert "\x1b" not in report.to_csv() + report.to_json()
        assert json.loads(report.to_json())["total"]["cost_usd"] == "2.000000001"
        report.to_parquet(tmp_path / "x.parquet")
        table = arrow.read_table(tmp_path / "x.parquet")
        assert sum(table["cost_usd"].to_pylist()) == report.total.cost_usd
        assert sum(report.dataframe()["cost_usd"]) == report.total.cost_usd


def test_redis_gives_the_answer_of_memory(redis_servers):
    clocks = FakeClock(START), FakeClock(START)
    url = next(iter(redis_servers.values())).url
    with (
        Ledger.open(url, clock=clocks[0], tenant="reports") as redis,
        Ledger.open("memory://", clock=clocks[1]) as memory,
    ):
        for ledger, clock in zip((redis, memory), clocks, strict=True):
            fill(ledger, clock, 7, archive=False)
        for by in ("team", "tag", "model", "status"):
            add_up(ask(redis, by))
            assert lines_of(ask(redis, by, over="day")) == lines_of(ask(memory, by, over="day"))
