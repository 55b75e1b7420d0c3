"""Advice on a ledger with planted wastes finds each, and saves on the provider's bill what it says."""

from __future__ import annotations

import json

import pytest
from planted_waste import GPT, HAIKU, SITES, WASTES, House, house, lines_of
from typer.testing import CliRunner

from llm_cost_middleware import CostConfig
from llm_cost_middleware.cli.app import app


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_KEY", "k")


CONFIG = f"""
[[tiers]]
name = "small"
models = ["anthropic/{HAIKU}"]

[[tiers]]
name = "large"
models = [{{model = "openai/{GPT}", reasoning_effort = "high"}}]
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """The bill of each waste, and what is advised on all of them together."""
    folder = tmp_path_factory.mktemp("planted")
    url, bills, refused = f"sqlite:///{folder / 'planted.db'}", {}, 0
    with pytest.MonkeyPatch.context() as patch, house(url) as found:
        patch.setenv("ANTHROPIC_API_KEY", "k")
        patch.setenv("OPENAI_API_KEY", "k")
        for name, waste in WASTES.items():
            before = found.sim.bill.total_nanousd
            waste(found)
            bills[name] = found.sim.bill.total_nanousd - before
        refused = found.refused
    config = folder / "llm-cost.toml"
    config.write_text(CONFIG)
    told = CliRunner().invoke(
        app, ["advise", "--json", "--since", "2000-01-01", "--ledger", url, "--config", str(config)]
    )
    assert told.exit_code == 0, told.output
    report = json.loads(told.stdout)
    return bills, {(one["kind"], one["site"]): one for one in report["advice"]}, report, refused


def nano(dollars):
    whole, _, part = dollars.partition(".")
    return int(whole) * 10**9 + int(part.ljust(9, "0") or 0)


def test_each_planted_waste_is_found_with_calls_and_lines(planted):
    _, advice, report, _ = planted
    assert [name for name, site in SITES.items() if (name, site) not in advice] == []
    assert {one["kind"] for one in report["advice"]} == set(WASTES)
    for one in report["advice"]:
        assert one["configuration"], one
        assert one["unknown"], one
        assert one["examples"], one


@pytest.mark.parametrize("name", [name for name in WASTES if name != "holds"])
def test_following_the_advice_saves_what_was_said_on_the_providers_bill(planted, name):
    bills, advice, _, _ = planted
    found = advice[name, SITES[name]]
    followed = lines_of(found["configuration"])
    with house(**followed) as again:
        WASTES[name](again, advised=True)
        after = again.sim.bill.total_nanousd
    # of the arm that was tried already, the calls are not made again
    before = bills[name] if name != "effort" else without_tried()
    assert nano(found["saved_usd"]) == pytest.approx(before - after, rel=0.05)


def without_tried():
    with house() as found:
        WASTES["effort"](found, advised=True)
        return found.sim.bill.total_nanousd


def test_holds_that_refused_calls_refuse_none_with_the_lines_that_are_advised(planted):
    _, advice, _, refused = planted
    found = advice["holds", ""]
    assert found["evidence"]["refused"] == refused > 0
    with house(**lines_of(found["configuration"])) as again:
        WASTES["holds"](again)
        assert again.refused == 0


def test_what_overlaps_is_counted_once(planted):
    bills, _, report, _ = planted
    in_order = sum(nano(one["saved_in_order_usd"]) for one in report["advice"])
    assert nano(report["saved_usd"]) == in_order <= sum(nano(one["saved_usd"]) for one in report["advice"])
    assert in_order < sum(bills.values())


def test_configured_lines_are_read_by_the_configuration(planted):
    _, _, report, _ = planted
    for one in report["advice"]:
        lines = lines_of(one["configuration"])
        CostConfig(**{key: value for key, value in lines.items() if key not in {"model", "reasoning_effort"}})


def test_a_clean_ledger_is_advised_nothing(tmp_path):
    url = f"sqlite:///{tmp_path / 'clean.db'}"
    with house(url) as found:
        clean(found)
    told = CliRunner().invoke(app, ["advise", "--since", "2000-01-01", "--ledger", url])
    assert told.exit_code == 0, told.output
    assert "Nothing to advise" in told.stdout


def clean(found: House):
    pipeline = found.pipeline()
    client, other = found.claude(pipeline), found.gpt(pipeline)
    for number in range(30):
        found.clock.advance(40)
        messages = [{"role": "user", "content": f"{number}: which page?"}]
        client.messages.create(model="claude-haiku-5-5", max_tokens=300, messages=messages)
        other.chat.completions.create(model="gpt-6.1-terra", max_completion_tokens=300, messages=messages)


def test_an_empty_ledger_is_an_answer(tmp_path):
    url = f"sqlite:///{tmp_path / 'empty.db'}"
    with house(url) as found:
        found.pipeline()
    told = CliRunner().invoke(app, ["advise", "--ledger", url])
    assert (told.exit_code, "No call was booked" in told.output) == (0, True)
    as_json = CliRunner().invoke(app, ["advise", "--json", "--ledger", url])
    assert json.loads(as_json.stdout)["advice"] == []
