"""What people write at the public doors is taken as what it means, or refused with the right form: nothing raw."""

import asyncio
import enum
import json
import tomllib
import uuid
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from math import inf, nan
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from llm_cost_middleware import (
    Budget,
    CachePolicy,
    ConfigurationError,
    CostConfig,
    CostPipeline,
    CostRecord,
    CostTracker,
    FailureKind,
    Ledger,
    LLMCostError,
    NanoUSD,
    RetryPolicy,
    RoutingPolicy,
    cost_context,
    price_response,
    process_many,
    select_model,
)
from llm_cost_middleware.config import sections
from llm_cost_middleware.config.environment import overrides
from llm_cost_middleware.context import current_context
from llm_cost_middleware.errors import InvalidAmountError
from llm_cost_middleware.lifecycle.attribution import AttributionConfig
from llm_cost_middleware.periods import coming_day, read_moment, read_period
from llm_cost_middleware.testing import FakeClock


class Colour(enum.Enum):
    RED = "red"


NAIVE = datetime(2026, 1, 1)
VALUES = (
    None, True, False, 0, 1, -1, 3, 10**30, 0.5, -0.5, nan, inf, 1e-12, 1e300, "", " ", "x", "a:b", "5", "80%", "7d",
    "1m", "2026-01-31", "\ud800", "\0", b"x", [], ["x"], [1], (), ("a", 1), {}, {"x": 1}, {1: 2}, {"scope": "global"},
    {"x"}, frozenset(), Path("x"), Path("/"), datetime(2026, 1, 1, tzinfo=UTC), NAIVE, NAIVE.replace(year=1),
    date(2026, 1, 1), date.max, timedelta(hours=1), timedelta(days=-1), timedelta.max, Decimal("0.5"), Decimal("NaN"),
    Decimal("-Infinity"), Decimal("1e50"), Fraction(1, 3), np.float64(0.5), np.float32(0.1), np.int64(5), np.bool_(1),
    np.datetime64("2026-01-31"), np.timedelta64(1, "h"), np.array([1, 2]), uuid.UUID(int=7), ZoneInfo("Europe/Vienna"),
    UTC, timezone(timedelta(hours=2)), Colour.RED, object(), print, int, Exception("x"), 1j, NanoUSD(5), Ellipsis,
)  # fmt: skip
PRESENT = datetime(2026, 11, 26, 15, 30, tzinfo=UTC).timestamp()  # a Thursday
VIENNA = ZoneInfo("Europe/Vienna")
FLAT = (RetryPolicy, CachePolicy, sections.LedgerConfig, sections.OutputConfig, sections.ProviderConfig)


def keywords(kind, **needed):
    """A door for each field of a dataclass: a keyword."""
    names = [item.name for item in fields(kind) if item.init]
    return {f"{kind.__name__}.{name}": lambda v, n=name: kind(**(needed | {n: v})) for name in names}


def toml_keys():
    """A door for each key of the file, by its section."""
    kinds = {
        "ledger": sections.LedgerConfig, "output": sections.OutputConfig, "retry": RetryPolicy, "cache": CachePolicy,
        "attribution": AttributionConfig, "routing": RoutingPolicy,
    }  # fmt: skip
    read = CostConfig.from_mapping
    doors = {f"[{item.name}]": lambda v, n=item.name: read({n: v}) for item in fields(CostConfig) if item.init}
    for section, kind in kinds.items():
        for item in fields(kind):
            key = {"kind": "policy"}.get(item.name, item.name)
            doors[f"{section}.{key}"] = lambda v, s=section, k=key: read({s: {k: v}})
    wholes = {
        "budgets": {"scope": "global", "limit": 5, "window": "day", "timezone": "UTC", "warn_at": 0.8, "reserve": {}},
        "tiers": {"name": "a", "models": ["openai/gpt-5-mini"]},
    }
    for table, whole in wholes.items():
        for key in whole:
            doors[f"{table}[0].{key}"] = lambda v, t=table, w=whole, k=key: read({t: [w | {k: v}]})
    price = {"input_mtok": 1, "output_mtok": 2}
    for item in fields(sections.ProviderConfig):
        doors[f"providers.openai.{item.name}"] = lambda v, k=item.name: read({"providers": {"openai": {k: v}}})
    for key in (*price, "tiers", "valid_from", "valid_until", "batch", "same_as", "service_tier", "speed"):
        doors[f"prices.{key}"] = lambda v, k=key: read({"prices": {"openai/x": price | {k: v}}})
    return doors


def verbs(ledger):
    """A door for each argument of the ledger."""
    ledger.reserve("0.01", id="held")
    return {
        "Ledger(budget)": ledger.set_budget,
        "Ledger.set_budget(limit)": lambda v: ledger.set_budget("team:z", v),
        "reserve(amount)": ledger.reserve,
        "reserve(scopes)": lambda v: ledger.reserve("0.01", v),
        "reserve(id)": lambda v: ledger.reserve("0.01", id=v),
        "reserve(ttl)": lambda v: ledger.reserve("0.01", ttl=v),
        "settle(id)": lambda v: ledger.settle(v, 0),
        "settle(actual)": lambda v: ledger.settle("held", v),
        "settle(status)": lambda v: ledger.settle("held", "0.01", status=v),
        "void(id)": ledger.void,
        "extend(id)": lambda v: ledger.extend(v, 5),
        "extend(ttl)": lambda v: ledger.extend("held", v),
        "balance(scope)": ledger.balance,
        "balance(window)": lambda v: ledger.balance("global", v),
        "remove_budget(scope)": ledger.remove_budget,
        "remove_budget(window)": lambda v: ledger.remove_budget("team:q", v),
        "rows(since)": lambda v: list(ledger.rows(v)),
        "rows(scope)": lambda v: list(ledger.rows(None, v)),
        "available(scopes)": ledger.available,
    }


def entering(key):
    def door(value):
        with cost_context(**{key: value}):
            pass

    return door


def doors():
    yield from keywords(Budget, scope="global", limit=5).items()
    for kind in (*FLAT, CostConfig):
        yield from keywords(kind).items()
    yield from toml_keys().items()
    yield from verbs(Ledger.open("memory://")).items()
    words = "user team key end_user tags site scopes force_model item_count conversation max_cost patience"
    for key in words.split():
        yield f"cost_context({key})", entering(key)
    whole = {"model": "m", "input_tokens": 1, "output_tokens": 1, "cost_usd": "0.1"}
    for name in ("at", "cost_usd", "input_tokens", "output_tokens"):
        yield f"CostRecord({name})", lambda v, n=name: CostRecord(**(whole | {n: v}))
    yield "CostTracker(budget_limit)", CostTracker
    yield "NanoUSD", NanoUSD
    yield "price_response(provider)", lambda v: price_response(v, {})
    yield "price_response(response)", lambda v: price_response("anthropic", v)
    yield "price_response(at)", lambda v: price_response("anthropic", {}, at=v)
    yield "select_model(text_length)", lambda v: select_model(v, 1)
    yield "select_model(item_count)", lambda v: select_model(1, v)
    yield "read_moment", lambda v: read_moment(v, "since", now=lambda: PRESENT, zone=UTC)
    yield "read_period", lambda v: read_period(v, "during", now=lambda: PRESENT, zone=None)
    yield "Ledger.open(url)", lambda v: Ledger.open(v) if not isinstance(v, Path) else None
    for key in ("tenant", "durability", "hold_ttl_s", "on_expiry"):
        yield f"Ledger.open({key})", lambda v, k=key: Ledger.open("memory://", **{k: v})


DOORS = dict(doors())


@pytest.mark.parametrize("door", DOORS)
def test_no_value_raises_an_error_of_pythons_own(door):
    raw = []
    for value in VALUES:
        try:
            DOORS[door](value)
        except LLMCostError:
            continue
        except Exception as error:  # noqa: BLE001 - what a user would meet
            raw.append(f"{value!r}: {type(error).__name__}: {error}")
    assert not raw


@pytest.mark.parametrize("kind", FLAT)
def test_what_a_field_accepts_it_holds_in_its_one_form(kind):
    """Whatever was written, the field holds what its hint says: a number of seconds, a word, true or false."""
    # Left out: an amount, which is read where it is used, and fields that may also hold None or a word.
    several = {"server_tool_allowance", "retry_on", "timeout_s", "default_max_tokens"}
    plain = {item.name: type(getattr(kind(), item.name)) for item in fields(kind) if item.init}
    for name in plain.keys() - several:
        for value in VALUES:
            try:
                held = getattr(kind(**{name: value}), name)
            except LLMCostError:
                continue
            assert type(held) is plain[name], (name, value, held)


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        (None, "none"), ("total", "none"), (3600, "3600s"), (timedelta(hours=1), "3600s"), ("1h", "3600s"),
        ("1d", "86400s"), ("24h", "86400s"), ("7 days", "604800s"), (timedelta(days=1), "86400s"), ("Daily", "day"),
        ("DAY", "day"), ("weekly", "week"), ("90s", "90s"), ("3600", "3600s"), ("5min", "300s"), (np.int64(60), "60s"),
    ],
)  # fmt: skip
def test_a_window_is_read_as_it_is_meant(written, canonical):
    assert Budget("global", 5, written).window == canonical
    assert CostConfig(budgets=[{"scope": "global", "limit": 5, "window": written}]).budgets[0].window == canonical
    with Ledger.open("memory://") as ledger:
        ledger.set_budget("team:a", 5, written)
        assert ledger.budgets()[0].window == canonical
        assert ledger.balance("team:a", written).limit == 5
        assert ledger.remove_budget("team:a", canonical)


@pytest.mark.parametrize(
    ("field", "written", "canonical"),
    [
        ("timezone", VIENNA, "Europe/Vienna"), ("timezone", UTC, "UTC"), ("timezone", None, "UTC"),
        ("timezone", "utc", "UTC"), ("warn_at", Decimal("0.8"), 0.8), ("warn_at", "80%", 0.8), ("warn_at", "0.8", 0.8),
        ("limit", "$5", 5), ("limit", "5 USD", 5), ("limit", "$1,234.50", Decimal("1234.5")), ("limit", np.int64(5), 5),
        ("limit", Fraction(1, 4), Decimal("0.25")), ("limit", np.float64(5), 5),
        ("limit", np.float32(0.1), Decimal("0.1")),
    ],
)  # fmt: skip
def test_a_field_of_a_budget_is_read_as_it_is_meant(field, written, canonical):
    assert getattr(Budget(**({"scope": "global", "limit": 7} | {field: written})), field) == canonical


@pytest.mark.parametrize(
    ("door", "written", "form"),
    [
        ("Budget.window", "1m", "'60s'.*'month'"), ("Budget.window", "year", "'31536000s'.*'month'"),
        ("Budget.window", "3 months", "'month'"), ("Budget.timezone", "+02:00", "'Europe/Vienna'.*'Etc/GMT-2'"),
        ("Budget.timezone", "europe/vienna", "did you mean 'Europe/Vienna'"), ("Budget.limit", "1,000", "'1000'"),
        ("Budget.limit", "5 EUR", "US dollars"), ("Budget.limit", 1e-12, "0.000000001"), ("Budget.warn_at", 80, "0.8"),
        ("Budget.warn_at", [0.5, "much"], "share"), ("[retry]", 3, "max_attempts"), ("[ledger]", 5, "'url'"),
        ("RetryPolicy.deadline_s", "soon", "'15m'"), ("RetryPolicy.retry_on", ["often"], "timeout"),
        ("prices.input_mtok", "cheap", "not a number"), ("select_model(text_length)", "a text", r"len\(text\)"),
        ("Ledger.open(url)", "postgres", "sqlite:////"), ("Ledger.open(url)", ":memory:", "memory://"),
        ("reserve(ttl)", "soon", "'15m'"), ("rows(since)", "recently", "2026-01-31"), ("NanoUSD", 0.5, "nano-dollars"),
        ("read_moment", 1_700_000_000_000, "milliseconds"), ("price_response(at)", "yesterday", "2026-01-31"),
        ("[prices]", {"my-ft": {"input_mtok": 1}}, "openai/my-ft"), ("CostConfig.mode", "enforced", "'enforce'"),
        ("price_response(provider)", {"usage": {}}, "provider comes first"), ("CostRecord(at)", "noon", "2026-01-31"),
        ("Ledger(budget)", "team:a", "Budget\\("), ("cost_context(tags)", "x", "list of strings"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_the_right_form(door, written, form):
    with pytest.raises(ConfigurationError, match=form):
        DOORS[door](written)


@pytest.mark.parametrize(
    ("key", "texts", "held"),
    [
        ("retry.deadline_s", ("300", '"5m"', "5m"), 300.0), ("ledger.hold_ttl_s", ('"15m"', "900"), 900.0),
        ("retry.max_attempts", ("4", '"4"'), 4), ("retry.quota", ("false", "False"), False),
        ("cache.mode", ('"off"', "off"), "off"), ("output.max_wait_for_budget_s", ("90", "90s"), 90.0),
        ("ledger.url", ('"x.db"', "x.db", "sqlite:///x.db"), "sqlite:///x.db"),
    ],
)  # fmt: skip
def test_a_keyword_the_file_and_the_environment_are_read_by_one_conversion(key, texts, held):
    section, name = key.split(".")
    for text in texts:
        variables = {f"LLM_COST_{section.upper()}__{name.upper()}": text}
        configs = [CostConfig.from_mapping(overrides({}, variables, CostConfig))]
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:  # a bare word, which only the environment has
            value = text
        configs.append(CostConfig(**{section: {name: value}}))
        for config in configs:
            assert getattr(getattr(config, section), name) == held


def test_a_section_may_be_one_word():
    assert CostConfig(ledger="x.db").ledger.url == CostConfig(ledger=Path("x.db")).ledger.url == "sqlite:///x.db"
    assert CostConfig(cache=False).cache.mode == CostConfig(cache="off").cache.mode == "off"
    assert CostConfig(routing="off").routing.kind == CostConfig(routing=False).routing.kind == "off"
    assert CostConfig(retry=None, routing=None, cache=None, budgets=None) == CostConfig()
    assert CostConfig(budgets=Budget("global", 5)).budgets == (Budget("global", 5),)
    with pytest.raises(ConfigurationError, match=r"ledger=…"), Ledger.open("memory://") as ledger:
        CostConfig(ledger=ledger)


def test_the_word_of_another_tool_leads_to_ours():
    with pytest.raises(ConfigurationError, match="did you mean 'max_attempts'"):
        RetryPolicy(max_retries=3)
    with pytest.raises(ConfigurationError, match="did you mean 'limit'"):
        Budget("global", max_budget=5)
    assert RetryPolicy(deadline_s=None).deadline_s == inf
    assert RetryPolicy(retry_on=["timeout"]).retry_on == {FailureKind.TIMEOUT}


def test_a_ledger_takes_paths_dates_and_lengths_of_time(tmp_path):
    clock = FakeClock(PRESENT)
    for place in (tmp_path / "a.db", str(tmp_path / "b.db"), f"sqlite:///{tmp_path / 'c.db'}"):
        with Ledger.open(place, clock=clock) as ledger:
            assert ledger.url.startswith("sqlite:///")
            ledger.book("0.5", ["team:a"])
            whole = list(ledger.rows())
            for since in (date(2026, 11, 26), "2026-11-26", "today", "1d", timedelta(hours=2), PRESENT, "2026-11"):
                assert list(ledger.rows(since)) == whole
            assert list(ledger.rows("2026-12-01")) == []
            held = ledger.reserve("0.1", ttl=timedelta(seconds=5))
            assert held.expires_at - held.created_at == pytest.approx(5)
    assert {path.name for path in tmp_path.iterdir()} >= {"a.db", "b.db", "c.db"}


def test_a_price_is_that_of_the_moment_however_it_is_written():
    body = {"model": "claude-haiku-4-5", "usage": {"input_tokens": 1000, "output_tokens": 100}}
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    wanted = price_response("anthropic", body, at=noon.timestamp())
    for at in (noon, noon.replace(tzinfo=None), noon.date(), "2026-01-01", "2026-01-01T12:00+00:00"):
        assert price_response("anthropic", body, at=at) == wanted


def test_a_record_is_added_dated_and_written_as_json():
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    record = CostRecord("claude-haiku-4-5", 10, 5, "0.001", at=noon, scopes=("global",))
    assert record.at == noon.timestamp()
    assert (CostTracker(1) + record).total_cost == Decimal("0.001")
    assert json.loads(json.dumps(record.as_dict()))["cost_usd"] == "0.001"
    with pytest.raises(ConfigurationError, match="input_tokens"):
        CostRecord("m", -1, 5, "0.001")


def test_a_context_is_a_block_of_both_kinds_and_a_decorator():
    @cost_context(team="a")
    def plain():
        return current_context().scopes

    @cost_context(team="a")
    async def waiting():
        await asyncio.sleep(0)
        return current_context().scopes

    async def block():
        async with cost_context(team="a") as context:
            return context.scopes

    assert plain() == asyncio.run(waiting()) == asyncio.run(block()) == ("team:a",)
    assert current_context().scopes == ()


def test_one_text_is_no_batch():
    with pytest.raises(ConfigurationError, match="must be a list"):
        process_many("abc", CostConfig(), CostTracker(), client=None)
    with pytest.raises(ConfigurationError, match="CostTracker"):
        process_many(["abc"], CostConfig(), None, client=None)


def test_an_amount_below_a_nano_dollar_is_no_limit_of_zero():
    with pytest.raises(InvalidAmountError, match="nano-dollar"):
        Budget("global", "0.0000000001")
    assert Budget("global", 0).limit == 0


@pytest.mark.parametrize(
    ("written", "start", "days"),
    [
        ("today", "2026-11-26", 1), ("Yesterday", "2026-11-25", 1), ("this month", "2026-11-01", 30),
        ("last month", "2026-10-01", 31), ("2026-11", "2026-11-01", 30), ("2026", "2026-01-01", 365),
        ("2026-W48", "2026-11-23", 7), ("2026-Q4", "2026-10-01", 92), ("last week", "2026-11-16", 7),
        ("this year", "2026-01-01", 365), ("monday", "2026-11-23", 1), ("thursday", "2026-11-26", 1),
        ("last thursday", "2026-11-19", 1), ("2026-11-25", "2026-11-25", 1), (date(2026, 11, 25), "2026-11-25", 1),
    ],
)  # fmt: skip
def test_a_period_is_read_in_its_time_zone(written, start, days):
    period = read_period(written, "during", now=lambda: PRESENT, zone=VIENNA)
    first = datetime.fromisoformat(start).replace(tzinfo=VIENNA)
    assert period.start == first.timestamp() == read_moment(written, "since", now=lambda: PRESENT, zone=VIENNA)
    assert period.end == (first + timedelta(days=days)).timestamp()


@pytest.mark.parametrize(("written", "seconds"), [("7d", 604_800), ("last 24 hours", 86_400), ("90 min ago", 5_400)])
def test_a_length_of_time_ends_now(written, seconds):
    assert read_period(written, "during", now=lambda: PRESENT, zone=UTC) == (PRESENT - seconds, PRESENT)


def test_a_pipeline_is_made_of_a_path_or_a_mapping(tmp_path):
    file = tmp_path / "llm-cost.toml"
    file.write_text('[[budgets]]\nscope = "global"\nlimit = "$5"\nwindow = "daily"\n')
    for source in (file, str(file), {"budgets": [{"scope": "global", "limit": 5, "window": "day"}]}):
        with CostPipeline(source) as pipeline:
            assert pipeline.config.budgets == (Budget("global", 5, "day"),)


def test_a_day_that_ends_something_lies_ahead():
    thursday = datetime(2026, 11, 26, 15, tzinfo=UTC).timestamp()
    ends = {"today": 27, "Tomorrow": 27, "friday": 27, "monday": 30, "wednesday": 32, "thursday": 33}
    for word, day in ends.items():
        found = coming_day(word, now=thursday, zone=UTC)
        assert found == (datetime(2026, 11, 1, tzinfo=UTC) + timedelta(days=day - 1)).timestamp(), word
    assert coming_day("2h", now=thursday, zone=UTC) is None
