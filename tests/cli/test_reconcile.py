"""``llm-cost reconcile``: exports made of what the simulator billed agree; planted differences are found, each of them.

The exports are written here in the shapes that the providers document, from the simulator's bill: it shares no
arithmetic with the package.
"""

import csv
import io
import json
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llm_cost_middleware import CostPipeline, Ledger, cost_context
from llm_cost_middleware.cli.app import app
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.reconcile import read_export
from llm_cost_middleware.simulator import Fault
from llm_cost_middleware.testing import FakeClock

START = datetime(2026, 11, 2, 12, tzinfo=UTC).timestamp()
DAY = 86_400
CLAUDE, GPT = ("claude-haiku-4-5-20251001", "claude-sonnet-4-6"), ("gpt-5-mini", "gpt-5-nano")
LONG = "a long preamble that is the same each time " * 400


class World:
    """A ledger of three days, and what the simulator billed on each of them."""

    def __init__(self, folder, sim, clients):
        self.folder, self.sim, self.clients = folder, sim, clients
        self.clock, self.url, self.bill = FakeClock(), f"sqlite:///{folder}/ledger.db", defaultdict(list)
        self.clock.advance(START - self.clock.now())
        self.pipeline = CostPipeline({"ledger": {"url": self.url}, "retry": {"max_attempts": 1}}, clock=self.clock)

    def spend(self, models=(*CLAUDE, *GPT), cap=40):
        before = len(self.sim.bill.lines)
        gpt = wrap_openai(self.clients["openai"], self.pipeline)
        claude = wrap_anthropic(self.clients["anthropic"], self.pipeline)
        question = [{"role": "user", "content": "hello"}]
        for model in models:
            with cost_context(team="a"):
                if model in CLAUDE:
                    system = [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}]
                    claude.messages.create(model=model, max_tokens=cap, messages=question, system=system)
                else:
                    tier = {"service_tier": "flex"} if model == "gpt-5-nano" else {}
                    gpt.chat.completions.create(model=model, messages=question, max_completion_tokens=cap, **tier)
        self.bill[self.today] += self.sim.bill.lines[before:]

    @property
    def today(self):
        return int(self.clock.now()) // DAY * DAY

    def close(self):
        self.pipeline.close()

    def export(self, name, change=lambda day, line: line):
        """One of the documented forms; ``change`` plants a fault in a line, or drops it."""
        lines = [
            (day, found) for day, all_ in sorted(self.bill.items()) for line in all_ if (found := change(day, line))
        ]
        path = self.folder / f"{name}.txt"
        path.write_text(FORMS[name](lines))
        return path

    def run(self, *files, more=()):
        done = CliRunner().invoke(app, ["reconcile", *map(str, files), "--ledger", self.url, "--json", *more])
        assert done.exit_code in (0, 1), (done.output, done.exception)
        found = json.loads(done.stdout)
        assert done.exit_code == bool(found["differences"])
        return found


@pytest.fixture
def world(tmp_path, sim, clients):
    world = World(tmp_path, sim, clients)
    for _ in range(3):
        world.spend()
        world.spend()
        world.clock.advance(DAY)
    yield world
    world.close()


# --- the documented forms --------------------------------------------------------------------------------------------


def _iso(day):
    return f"{datetime.fromtimestamp(day, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _of(lines, provider):
    groups = defaultdict(list)
    for day, line in lines:
        if line.provider == provider:
            groups[day, line.model, line.tier].append(line)
    return sorted(groups.items())


def _sum(group, name):
    return sum(getattr(line.tokens, name) for line in group)


def _anthropic_page(lines, result):
    days = defaultdict(list)
    for (day, model, tier), group in _of(lines, "anthropic"):
        days[day].append(result(model, tier, group))
    data = [
        {"starting_at": _iso(day), "ending_at": _iso(day + DAY), "results": results} for day, results in days.items()
    ]
    return json.dumps({"data": data, "has_more": False, "next_page": None})


def _anthropic_usage(lines):
    return _anthropic_page(lines, lambda model, tier, group: {
        "api_key_id": None, "workspace_id": None, "model": model, "service_tier": tier, "context_window": None,
        "uncached_input_tokens": _sum(group, "input"), "cache_read_input_tokens": _sum(group, "read"),
        "cache_creation": {
            "ephemeral_5m_input_tokens": _sum(group, "write"), "ephemeral_1h_input_tokens": _sum(group, "write_1h"),
        },
        "output_tokens": _sum(group, "output"), "server_tool_use": {"web_search_requests": _sum(group, "searches")},
    })  # fmt: skip


def _anthropic_cost(lines):
    return _anthropic_page(lines, lambda model, tier, group: {
        "amount": f"{Decimal(sum(line.cost_nanousd for line in group)) / 10**7:f}", "currency": "USD",
        "cost_type": "tokens", "description": f"{model} Usage", "model": model, "service_tier": tier,
        "token_type": "output_tokens", "context_window": "0-200k", "workspace_id": None,
    })  # fmt: skip


def _openai_page(lines, result):
    days = defaultdict(list)
    for (day, model, tier), group in _of(lines, "openai"):
        days[day].append(result(model, tier, group))
    data = [
        {"object": "bucket", "start_time": day, "end_time": day + DAY, "results": found} for day, found in days.items()
    ]
    return json.dumps({"object": "page", "data": data, "has_more": False, "next_page": None})


def _openai_usage_result(model, tier, group):
    return {
        "object": "organization.usage.completions.result", "project_id": None, "model": model, "batch": False,
        "service_tier": "default" if tier == "standard" else tier, "num_model_requests": len(group),
        "input_tokens": sum(line.tokens.prompt for line in group), "output_tokens": _sum(group, "output"),
        "input_cached_tokens": _sum(group, "read"), "input_audio_tokens": 0, "output_audio_tokens": 0,
    }  # fmt: skip


def _openai_cost(lines):
    return _openai_page(lines, lambda model, _, group: {
        "object": "organization.costs.result", "line_item": f"{model}, output", "project_id": None,
        "amount": {"value": float(Decimal(sum(line.cost_nanousd for line in group)) / 10**9), "currency": "usd"},
    })  # fmt: skip


def _table(rows):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _anthropic_usage_csv(lines):
    return _table([
        {
            "usage_date_utc": _iso(day)[:10], "model_version": model, "api_key": "key", "workspace": "Default",
            "usage_type": tier, "context_window": "≤ 200k", "usage_input_tokens_no_cache": _sum(group, "input"),
            "usage_input_tokens_cache_write_5m": _sum(group, "write"),
            "usage_input_tokens_cache_write_1h": _sum(group, "write_1h"),
            "usage_input_tokens_cache_read": _sum(group, "read"), "usage_output_tokens": _sum(group, "output"),
            "web_search_count": 0, "inference_geo": "global", "speed": "",
        }
        for (day, model, tier), group in _of(lines, "anthropic")
    ])  # fmt: skip


def _openai_usage_csv(lines):
    rows = []
    for (day, model, tier), group in _of(lines, "openai"):
        result = _openai_usage_result(model, tier, group)
        del result["object"]
        rows.append({"start_time": day, "end_time": day + DAY, "start_time_iso": _iso(day), **result})
    return _table(rows)


def _openai_cost_csv(lines):
    days = defaultdict(int)
    for (day, *_), group in _of(lines, "openai"):
        days[day] += sum(line.cost_nanousd for line in group)
    rows = [
        {
            "start_time": day, "end_time": day + DAY, "amount_value": f"{Decimal(nano) / 10**9:.30f}",
            "amount_currency": "usd", "line_item": "",
        }
        for day, nano in days.items()
    ]  # fmt: skip
    return _table([*rows, rows[0] | {"start_time": 0, "amount_value": "", "amount_currency": ""}])


def _anthropic_cost_csv(lines):
    return _table([
        {
            "usage_date_utc": _iso(day)[:10], "model": model, "workspace": "Default", "usage_type": tier,
            "token_type": "output", "cost_usd": f"{Decimal(sum(line.cost_nanousd for line in group)) / 10**9:.6f}",
        }
        for (day, model, tier), group in _of(lines, "anthropic")
    ])  # fmt: skip


FORMS = {
    "anthropic_usage": _anthropic_usage, "anthropic_cost": _anthropic_cost, "openai_cost": _openai_cost,
    "openai_usage": lambda lines: _openai_page(lines, _openai_usage_result),
    "anthropic_usage_csv": _anthropic_usage_csv, "openai_usage_csv": _openai_usage_csv,
    "openai_cost_csv": _openai_cost_csv, "anthropic_cost_csv": _anthropic_cost_csv,
}  # fmt: skip
USAGE = [name for name in FORMS if "usage" in name]
COSTS = [name for name in FORMS if "cost" in name]


# --- clean and planted -----------------------------------------------------------------------------------------------


def test_clean_exports_of_every_form_have_no_difference(world):
    for name in FORMS:
        assert world.run(world.export(name))["differences"] == [], name
    several = ("anthropic_usage", "anthropic_cost_csv", "openai_usage_csv", "openai_cost")
    assert world.run(*map(world.export, several))["differences"] == []


@pytest.mark.parametrize("name", USAGE)
def test_planted_tokens_are_found_where_they_are_and_nowhere_else(world, name):
    provider = name.partition("_")[0]
    model = CLAUDE[0] if provider == "anthropic" else GPT[0]
    victim = next(line for day, lines in sorted(world.bill.items()) for line in lines if _is(line, model))
    day = next(day for day, lines in world.bill.items() if victim in lines)

    def more(_, line):
        return replace(line, tokens=replace(line.tokens, output=line.tokens.output + 7)) if line is victim else line

    (one,) = world.run(world.export(name, more))["differences"]
    assert (one["day"], one["model"], one["tier"]) == (_iso(day)[:10], victim.model, "standard")
    assert (one["what"], one["reported"] - one["ledger"]) == ("output", 7)
    assert Decimal(one["worth_usd"]) > 0

    dropped = world.run(world.export(name, lambda _, line: None if line is victim else line))["differences"]
    assert {(one["day"], one["model"]) for one in dropped} == {(_iso(day)[:10], victim.model)}
    assert all(one["reported"] < one["ledger"] for one in dropped)
    assert {"output", "uncached_input"} <= {one["what"] for one in dropped} | {"uncached_input"}


def _is(line, model):
    return line.model == model or line.model.startswith(model)


@pytest.mark.parametrize("name", COSTS)
def test_a_planted_cent_is_found(world, name):
    victim = next(line for lines in world.bill.values() for line in lines if line.provider == name.partition("_")[0])
    dearer = lambda _, line: replace(line, cost_nanousd=line.cost_nanousd + 10**7) if line is victim else line
    (one,) = world.run(world.export(name, dearer))["differences"]
    assert one["what"] == "cost"
    assert abs(Decimal(one["worth_usd"]) - Decimal("0.01")) < Decimal("0.00001")


def test_a_call_that_passed_the_ledger_by_is_found(world):
    passed = next(line for line in world.bill[min(world.bill)] if line.provider == "openai")
    world.bill[min(world.bill)].append(passed)
    found = world.run(world.export("openai_usage"))["differences"]
    assert {one["what"] for one in found} >= {"requests", "output"}
    assert next(one for one in found if one["what"] == "requests")["reported"] == 3


def test_what_the_provider_counts_after_midnight_is_no_difference(world):
    first, second = sorted(world.bill)[:2]
    world.bill[second].append(late := next(line for line in world.bill[first] if line.provider == "anthropic"))
    world.bill[first].remove(late)
    for name in ("anthropic_usage", "anthropic_cost"):
        assert world.run(world.export(name))["differences"] == []


# --- unconfirmed -----------------------------------------------------------------------------------------------------


def _lose(world, *, billed):
    """A call that nobody knows the end of, at a model of its own."""
    world.sim.script(Fault.reset(billed=billed))
    with pytest.raises(Exception, match="onnection"):
        world.spend(models=[GPT[1]])
    world.bill[world.today] = [*world.bill[world.today], *([world.sim.bill.lines[-1]] if billed else [])]


def _unconfirmed(url):
    with Ledger.open(url) as opened:
        last = {row.id: row for row in opened.rows() if row.kind not in {"reserve", "reduce"}}
    return [row for row in last.values() if row.status == "unconfirmed"]


@pytest.mark.parametrize("billed", [True, False])
def test_an_unconfirmed_attempt_is_settled_where_the_provider_proves_it(tmp_path, sim, clients, billed):
    world = World(tmp_path, sim, clients)
    world.spend(models=[GPT[0]])
    _lose(world, billed=billed)
    world.clock.advance(DAY)
    world.close()
    (unsure,) = _unconfirmed(world.url)
    export = world.export("openai_usage")
    told = world.run(export)
    assert len(told["proven"]) == 1, told
    assert _unconfirmed(world.url) == [unsure]  # told, and nothing more
    done = world.run(export, more=["--settle"])
    assert done["proven"][0]["id"] == unsure.id
    assert _unconfirmed(world.url) == []
    with Ledger.open(world.url) as opened:
        assert opened.balance("global").settled_nanousd == sim.bill.total_nanousd
    assert world.run(export) == {"differences": [], "proven": [], "settled": False}


def test_two_unconfirmed_attempts_of_one_day_prove_nothing_of_either(tmp_path, sim, clients):
    world = World(tmp_path, sim, clients)
    _lose(world, billed=True)
    _lose(world, billed=True)
    world.clock.advance(DAY)
    world.close()
    told = world.run(world.export("openai_usage"), more=["--settle"])
    assert told["proven"] == []
    assert len(_unconfirmed(world.url)) == 2
    assert all("2 calls of unknown usage" in one["because"] for one in told["differences"])


@pytest.mark.parametrize("trap", ["another tier", "another name", "near midnight", "an export that lacks a call"])
def test_what_only_looks_like_nothing_billed_proves_nothing(tmp_path, sim, clients, trap):
    world = World(tmp_path, sim, clients)
    if trap == "near midnight":
        world.clock.advance(11.5 * 3600)
    world.spend(models=[GPT[0]])
    _lose(world, billed=trap in {"another tier", "another name"})
    world.clock.advance(DAY)
    world.close()
    change = {
        "another tier": lambda _, line: replace(line, tier="priority") if line.tier == "flex" else line,
        "another name": lambda _, line: replace(line, model="gpt-nano-latest") if line.tier == "flex" else line,
        "near midnight": lambda _, line: line,
        "an export that lacks a call": lambda _, line: None if line.tier != "flex" else line,
    }[trap]
    export = world.export("openai_usage", change)
    if trap == "an export that lacks a call":
        export.write_text(json.dumps({"object": "page", "has_more": False, "data": [
            {"object": "bucket", "start_time": world.today - DAY, "end_time": world.today, "results": [
                _openai_usage_result(GPT[0], "standard", world.bill[world.today - DAY][:1]) | {"output_tokens": 0}
            ]}
        ]}))  # fmt: skip
    told = world.run(export, more=["--settle"])
    if trap != "another tier":  # which the provider itself says, and is priced by
        assert told["proven"] == []
        assert len(_unconfirmed(world.url)) == 1
    assert not [one for one in told["proven"] if one["actual_usd"] == "0.000000000"]


@pytest.mark.parametrize(
    ("more", "tokens"),
    [
        ({}, {"uncached_input": 70, "cache_read": 30}),
        ({"input_cache_write_30m_tokens": 5, "input_cache_write_12h_tokens": 6, "input_cache_write_tokens": 11},
         {"uncached_input": 59, "cache_read": 30, "cache_write_30m": 5, "cache_write_12h": 6}),
        ({"input_cache_write_tokens": 11}, {"uncached_input": 59, "cache_read": 30, "cache_write_30m": 11}),
        ({"input_audio_tokens": 20, "input_cached_audio_tokens": 10, "output_audio_tokens": 4},
         {"uncached_input": 50, "cache_read": 20, "audio_input": 20, "audio_cache_read": 10, "audio_output": 4}),
    ],
)  # fmt: skip
def test_counts_that_contain_each_other_are_taken_apart(tmp_path, more, tokens):
    result = {
        "object": "organization.usage.completions.result", "input_tokens": 100, "output_tokens": 9,
        "input_cached_tokens": 30, "num_model_requests": 1, **more,
    }  # fmt: skip
    path = Path(tmp_path, "usage.json")
    path.write_text(json.dumps({"data": [{"start_time": 0, "results": [result]}]}))
    (line,) = read_export(path)
    wanted = {"output": 9 - more.get("output_audio_tokens", 0), **tokens}
    assert {name: count for name, count in line.tokens.items() if count} == wanted


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be an export"), ("a,b\n1,2\n", "must be an export"), ("{}", "must be an export"), ("[1]", "must be"),
        ('{"data": [{"start_time": 0, "results": [{"object": "organization.usage.images.result"}]}]}', "images"),
        ('{"data": [], "has_more": true}', "has_more"), ("{broken", "must be an export"),
        ('{"data": [{"starting_at": "2026-11-01T00:00:00Z", "results": [{"amount": "1", "currency": "EUR"}]}]}', "EUR"),
    ],
)  # fmt: skip
def test_what_is_no_export_is_refused_with_what_is(tmp_path, text, said):
    path = Path(tmp_path, "export.json")
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said) as caught:
        read_export(path)
    assert f"{path} " in str(caught.value)  # of several files
    assert str(caught.value).count("export: ") == 1


def test_pages_may_come_as_a_list_or_one_a_line(world):
    text = world.export("openai_usage").read_text()
    page = json.loads(text)
    pages = [page | {"data": [day], "has_more": True} for day in page["data"]]
    pages[-1]["has_more"] = False
    for form in (json.dumps(pages), "\n".join(map(json.dumps, pages))):
        path = world.folder / "pages.json"
        path.write_text(form)
        assert world.run(path)["differences"] == []


def test_only_the_lines_of_a_project_are_compared(world):
    path = world.folder / "projects.csv"
    lines = [(day, line) for day, lines in world.bill.items() for line in lines]
    rows = list(csv.DictReader(io.StringIO(_openai_usage_csv(lines))))
    mixed = [row | {"project_id": "ours"} for row in rows] + [row | {"project_id": "theirs"} for row in rows]
    path.write_text(_table(mixed))
    assert world.run(path)["differences"]
    assert world.run(path, more=["--project", "ours"])["differences"] == []
