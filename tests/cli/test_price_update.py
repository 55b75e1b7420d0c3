"""``llm-cost prices update``: nothing over the network unless asked, and what differs of the models in use."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from typer.testing import CliRunner

from llm_cost_middleware.cli.app import app
from llm_cost_middleware.pricing.catalogue import Catalogue

CONFIG = '[[tiers]]\nname = "one"\nmodels = ["openai/gpt-5"]\n'


@pytest.fixture
def published():
    """The address of a server that publishes one model, and the paths that were asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            model = {"id": "gpt-5", "match": {"equals": "gpt-5"}, "prices": {"input_mtok": 9, "output_mtok": 10}}
            body = json.dumps([{"id": "openai", "name": "OpenAI", "api_pattern": "x", "models": [model]}]).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/data.json", asked
        server.shutdown()
        thread.join()


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "llm-cost.toml"
    file.write_text(CONFIG)
    return str(file)


def test_without_the_word_network_nothing_is_fetched(published, config):
    told = CliRunner().invoke(app, ["prices", "update", "--config", config])
    assert (told.exit_code, published[1]) == (1, [])
    assert "pip install -U genai-prices" in told.output


def test_what_differs_is_told_of_the_models_in_use_alone(published, config):
    told = CliRunner().invoke(app, ["prices", "update", "--url", published[0], "--json", "--config", config])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["models"] == ["openai/gpt-5"]
    changed = {(one["bucket"], one["before"], one["after"]) for one in found["changes"]}
    assert ("uncached_input", "1.25", "9") in changed
    assert not any(bucket == "output" for bucket, *_ in changed)
    assert published[1] == ["/data.json"]
    shown = CliRunner().invoke(app, ["prices", "update", "--url", published[0], "--config", config])
    assert "update_prices = true" in shown.output
    assert Catalogue().rates("openai", "gpt-5").levels[0].uncached_input == 1_250_000


@pytest.mark.parametrize("words", [["--ledger", "l.db"], ["--network"], ["--url", "http://127.0.0.1:9/data.json"]])
def test_an_option_that_would_do_nothing_is_refused(config, words):
    told = CliRunner().invoke(app, ["prices", "gpt-5", *words, "--config", config])
    assert told.exit_code
    assert words[0] in str(told.exception)


def test_what_cannot_be_fetched_is_no_answer(config):
    told = CliRunner().invoke(app, ["prices", "update", "--url", "http://127.0.0.1:9/data.json", "--config", config])
    assert told.exit_code == 1
    assert "could not be fetched" in told.output


def test_retirements_are_shown_with_prices_and_by_doctor(tmp_path):
    told = CliRunner().invoke(app, ["prices", "claude-sonnet-4-5", "--json"])
    assert json.loads(told.stdout)["models"][0]["retires"] == "2026-11-30"
    file = tmp_path / "llm-cost.toml"
    file.write_text('[[tiers]]\nname = "old"\nmodels = ["openai/gpt-5-mini", "openai/o3-mini"]\n')
    shown = CliRunner().invoke(app, ["doctor", "--config", str(file)])
    assert "retired since 2026-10-23" in " ".join(shown.output.split())
