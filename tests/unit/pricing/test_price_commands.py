"""``llm-cost prices`` and ``llm-cost estimate``, as a person or a script sees them."""

from __future__ import annotations

import json
import re

import pytest
import typer
from typer.testing import CliRunner

from llm_cost_middleware.cli.estimate import estimate
from llm_cost_middleware.cli.prices import prices
from llm_cost_middleware.errors import ConfigurationError, PriceNotFoundError

APP = typer.Typer()
APP.command()(prices)
APP.command()(estimate)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run a command where no configuration is, and have its outcome."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLM_COST_CONFIG", raising=False)
    monkeypatch.setenv("COLUMNS", "120")

    def outcome(*arguments):
        result = CliRunner().invoke(APP, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return outcome


@pytest.fixture
def requests_file(tmp_path):
    def write(*lines):
        path = tmp_path / "requests.jsonl"
        path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
        return str(path)

    return write


CHAT = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hello " * 100}], "max_completion_tokens": 300}
CLAUDE = {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}


def test_one_model_is_shown_with_every_way_it_can_be_served(run):
    text = run("prices", "gpt-6-astra", "--at", "2026-11-01").stdout
    cells = [re.split(r"  +", line) for line in text.splitlines() if "gpt-6-astra" in line]
    assert cells[0] == ["openai/gpt-6-astra", "standard", "10.00", "1.00", "12.50", "50.00"]
    assert cells[1][2:4] == ["> 272k", "20.00"]
    assert [row[1] for row in cells[::2]] == ["standard", "batch", "flex", "priority", "ultrafast"]
    assert "genai-prices" in text.splitlines()[-1]


def test_a_part_of_a_name_shows_every_model_that_has_it(run):
    text = run("prices", "claude-opus").stdout
    assert text.count("anthropic/claude-opus") == 8
    assert "openai" not in text


def test_prices_are_those_of_the_day(run):
    def read(day):
        return json.loads(run("prices", "claude-sonnet-5-5", "--at", day, "--json").stdout)["models"][0]["cache_read"]

    assert (read("2026-10-06"), read("2026-10-07")) == ("0.2", "0.1")


def test_all_prices_are_listed_as_json_without_a_model(run):
    data = json.loads(run("prices", "--json").stdout)
    assert len({row["model"] for row in data["models"]}) > 80
    assert all(float(row["input"]) > 0 for row in data["models"])


def test_an_unknown_model_is_an_error_that_names_the_nearest(run):
    with pytest.raises(PriceNotFoundError, match="claude-opus-4-6"):
        run("prices", "claude-opus-46")


def test_prices_of_the_configuration_are_shown(run, tmp_path):
    (tmp_path / "llm-cost.toml").write_text(
        '[prices."openai/my-finetune"]\ninput_mtok = "1.10"\noutput_mtok = "4.40"\n'
    )
    assert "4.40" in run("prices", "openai/my-finetune").stdout


def test_a_file_of_requests_is_bounded_and_expected_by_model(run, requests_file):
    path = requests_file(
        CHAT,
        {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": CHAT},
        "",
        {"custom_id": "b", "params": CLAUDE | {"tools": [{"type": "web_search_20260209", "name": "web_search"}]}},
        {"model": "gpt-5", "input": "hi", "max_output_tokens": 16},
    )
    data = json.loads(run("estimate", path, "--json").stdout)
    chat = data["models"]["openai/gpt-5-mini"]
    assert (chat["requests"], chat["output_tokens_at_most"], chat["not_guaranteed"]) == (2, 600, 0)
    assert data["models"]["anthropic/claude-haiku-4-5"]["not_guaranteed"] == 1
    for model in data["models"].values():
        assert 0 < float(model["expected_usd"]) <= float(model["at_most_usd"])
    assert float(data["at_most_usd"]) == pytest.approx(sum(float(m["at_most_usd"]) for m in data["models"].values()))
    text = run("estimate", path).stdout
    assert "claude-haiku-4-5*" in text
    assert "server tools" in text


def test_a_batch_costs_half_and_a_longer_answer_more(run, requests_file):
    path = requests_file(CLAUDE)

    def total(*more):
        data = json.loads(run("estimate", path, "--json", *more).stdout)
        return float(data["at_most_usd"]), float(data["expected_usd"])

    assert total("--batch") == pytest.approx(tuple(usd / 2 for usd in total()))
    assert total("--answer", "10")[1] < total("--answer", "50")[1] < total()[1]


def test_a_model_without_a_price_is_reported_and_never_counted_as_zero(run, requests_file):
    result = run("estimate", requests_file(CHAT, CHAT | {"model": "gpt-9"}), "--json")
    assert result.exit_code == 1
    assert "gpt-9" in result.stderr
    assert "line 2" in result.stderr


@pytest.mark.parametrize("line", ["{broken", "[1]", '{"messages": []}', '{"model": 3}'])
def test_what_is_not_a_request_is_refused_with_its_line(run, requests_file, line):
    with pytest.raises(ConfigurationError, match="line 2"):
        run("estimate", requests_file(CHAT, line))


def test_a_file_that_is_not_there_is_refused(run):
    with pytest.raises(ConfigurationError, match="cannot read"):
        run("estimate", "absent.jsonl")


def test_a_deployment_costs_as_the_model_that_is_configured_behind_it(run, requests_file, tmp_path):
    (tmp_path / "llm-cost.toml").write_text('[platforms.azure.deployments]\nours = "eu/gpt-5-mini"\n')
    lines = [CHAT | {"model": name} for name in ("azure/ours", "azure/eu/gpt-5-mini")]
    result = run("estimate", requests_file(*lines), "--json")
    assert result.exit_code == 0, result.stderr
    assert {name: model["requests"] for name, model in json.loads(result.stdout)["models"].items()} == {
        "azure/eu/gpt-5-mini": 2
    }


VECTORS = {"model": "text-embedding-3-small", "input": ["hello", "world"]}


@pytest.mark.parametrize("line", [VECTORS, {"url": "/v1/embeddings", "body": VECTORS | {"model": "openai/ada"}}])
def test_embeddings_have_no_output(run, requests_file, tmp_path, line):
    (tmp_path / "llm-cost.toml").write_text('[prices."openai/ada"]\ninput_mtok = "0.02"\noutput_mtok = "0.02"\n')
    (told,) = json.loads(run("estimate", requests_file(line), "--json").stdout)["models"].values()
    assert told["output_tokens_at_most"] == told["not_guaranteed"] == 0
    assert 0 < float(told["at_most_usd"]) <= 0.02 * 10 / 10**6, "ten bytes are ten tokens at most"
    assert 0 < float(told["expected_usd"]) <= float(told["at_most_usd"])
