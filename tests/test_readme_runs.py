"""Every block of code, settings and commands of the README, run in its order against the loopback provider."""

import contextlib
import io
import os
import re
import shlex
import tomllib
from pathlib import Path

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
ANSWERS = {0, 1}
"""Exit codes of commands that did what they were asked: 1 says that the answer is no."""


def words_of(text):
    """What a reader would look for: words, without figures, ids and the width of the terminal."""
    return {word for word in re.findall(r"[a-z][a-z_:-]{3,}", text) if not re.search(r"\d", word)}


def commands(block):
    """Each command of a block with the output that stands below it."""
    parts = re.split(r"^\$ llm-cost (.*)$", block, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def names_of_the_reader(sim):
    """What the README takes for granted: imports of hosts, a router's models, a text."""
    import anthropic
    import litellm
    from langchain.agents import create_agent
    from langchain_openai import ChatOpenAI

    from llm_cost_middleware import CostConfig, CostTracker, process, process_many
    from llm_cost_middleware.integrations.anthropic import wrap_anthropic
    from llm_cost_middleware.integrations.langchain import CostMiddleware, guard
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    litellm.suppress_debug_info = True
    smart = {"model": "anthropic/claude-haiku-4-5-20251001", "api_base": sim.anthropic_url, "api_key": "k"}
    return {
        "anthropic": anthropic, "create_agent": create_agent, "ChatOpenAI": ChatOpenAI, "tools": [],
        "CostMiddleware": CostMiddleware, "guard": guard, "CostAwareRouter": CostAwareRouter,
        "wrap_anthropic": wrap_anthropic, "model_list": [{"model_name": "smart", "litellm_params": smart}],
        "messages": [{"role": "user", "content": "Why is the sky blue?"}], "text": "a text", "texts": ["one", "two"],
        "RULES": "Be brief.", "CostConfig": CostConfig, "CostTracker": CostTracker, "process": process,
        "process_many": process_many,
    }  # fmt: skip


def run_all(sim, folder, monkeypatch):
    """Run every block; return what each command and each block printed, beside what the README shows."""
    from typer.testing import CliRunner

    from llm_cost_middleware.cli.app import app

    monkeypatch.chdir(folder)
    for name in ("ANTHROPIC", "OPENAI"):
        monkeypatch.setenv(f"{name}_API_KEY", "k")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", sim.anthropic_url)
    monkeypatch.setenv("OPENAI_BASE_URL", sim.openai_url)
    names, printed, shown, last = names_of_the_reader(sim), [], [], ""
    for language, block in BLOCKS:
        if language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - the example under test
            last = out.getvalue()
            printed.append(last)
        elif language == "toml":
            names["settings"] = tomllib.loads(block)
        elif language == "text" and "exceeded" in block:
            shown.append(("the block before", 0, last, block))
        elif language == "console":
            for command, output in commands(block):
                result = CliRunner().invoke(app, shlex.split(command), env={"COLUMNS": "100"})
                shown.append((command, result.exit_code, result.output, output))
    names["pipeline"].close()
    return names, printed, shown


@pytest.mark.litellm
@pytest.mark.filterwarnings("ignore::UserWarning")  # of pydantic, about LiteLLM's own types
def test_every_block_and_command_runs_and_shows_what_it_says(sim, tmp_path, monkeypatch):
    for package in ("langchain_anthropic", "langchain_openai", "langchain", "litellm"):
        pytest.importorskip(package, reason=f"needs the test extra: {package}")
    names, printed, shown = run_all(sim, tmp_path, monkeypatch)
    assert "claude-sonnet-4-6" in printed[0]  # a budget alone changes no model
    assert names["pipeline"].config.__class__.from_mapping(names["settings"]).routes
    assert len(shown) >= 4
    for command, code, output, wanted in shown:
        assert code in ANSWERS, (command, output)
        missing = words_of(wanted) - words_of(output)
        assert not missing, (command, missing, output)
        assert len(output.splitlines()) >= len(wanted.splitlines()) - 2, command
    assert sim.bill.total_nanousd > 0
    assert os.path.exists("llm-cost.db")  # noqa: PTH110 - where the README says


def test_the_page_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 260
