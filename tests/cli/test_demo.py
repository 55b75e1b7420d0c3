"""The demo: real clients, a chain and a router, and the line that matters."""

import gzip
import json
import re
import subprocess
import sys

import pytest

from llm_cost_middleware.simulator import Fault, Simulator

pytestmark = pytest.mark.litellm


def _run(*arguments, cwd, columns=140, terminal=False, **env):
    code = f"""
import resource, sys
sys.argv = ["llm-cost", "demo", *{arguments!r}]
from llm_cost_middleware.cli import main
try:
    main()
finally:
    print("MAXRSS", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=cwd, capture_output=True, text=True, check=False,
        env={"PATH": "", "COLUMNS": str(columns), "PYTHONPATH": ":".join(sys.path), "HOME": str(cwd),
             **({"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "dumb"} if terminal else {}), **env},
    )  # fmt: skip


def _demo(*arguments, **options):
    done = _run(*arguments, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _agreed(shown):
    line = next(line for line in shown.splitlines() if "ledger total" in line)
    assert " = provider's bill " in line
    return line.split(" on ")[1].split(" calls")[0].replace(",", "").split(" of ")


def test_the_packaged_excerpt_ends_in_a_receipt_that_is_the_bill(tmp_path):
    shown = _demo(cwd=tmp_path)
    agreed, calls = _agreed(shown)
    refused = int(next(line for line in shown.splitlines() if line.startswith("refused")).split()[1])
    assert agreed == calls
    assert refused > 0
    assert int(calls) + refused == 80
    assert "claude-haiku-4-5-20251001" in shown
    assert "gpt-5-mini" in shown


def test_a_narrow_terminal_cuts_no_figure(tmp_path):
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", _demo(cwd=tmp_path, columns=80, terminal=True))
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    total = next(line for line in shown.splitlines() if line.startswith("total")).split()
    assert f"ledger total {total[-1]} = provider's bill {total[-1]} " in shown
    assert f"to the nano-dollar, on {total[1]} of {total[1]} calls" in shown


@pytest.mark.data
def test_conversations_of_a_file_are_played(tmp_path, data_folder, soak):
    source = data_folder / "agent_traces" / "airline_conversations.jsonl.gz"
    calls = 1698
    if not soak:
        with gzip.open(source, "rt", encoding="utf-8") as lines:
            some = [next(lines) for _ in range(12)]
        source = tmp_path / "some.jsonl"
        source.write_text("".join(some), encoding="utf-8")
        calls = sum(message["role"] == "assistant" for line in some for message in json.loads(line)["messages"])
    shown = _demo("--conversations", str(source), "--trial-budget", "25", cwd=tmp_path)
    assert _agreed(shown) == [str(calls), str(calls)]
    print(f"{calls} of {calls} calls agree; {shown.split('MAXRSS')[1].strip()} KB resident at most")


def _told(done):
    """What is wrong, in the one line that says it."""
    assert (done.returncode, done.stdout.startswith("MAXRSS")) == (2, True), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("llm-cost: ")]
    return line


def test_a_live_demo_without_its_keys_names_them(tmp_path):
    assert _told(_run("--live", cwd=tmp_path)).endswith("set ANTHROPIC_API_KEY and OPENAI_API_KEY")
    assert _told(_run("--live", cwd=tmp_path, ANTHROPIC_API_KEY="k")).endswith("set OPENAI_API_KEY")


def test_a_live_demo_that_no_provider_answers_says_so_in_a_line(tmp_path):
    keys = {"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "secret"}
    closed = {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9", "OPENAI_BASE_URL": "http://127.0.0.1:9"}
    told = _told(_run("--live", cwd=tmp_path, **keys, **closed))
    assert "a call failed: " in told
    assert "connection" in told
    assert told.endswith("after 0 calls and $0.00")
    with Simulator() as simulator:
        simulator.script(Fault.status(401), times=99)
        there = {"ANTHROPIC_BASE_URL": simulator.anthropic_url, "OPENAI_BASE_URL": simulator.openai_url}
        assert "authentication" in _told(_run("--live", cwd=tmp_path, **keys, **there))
        assert simulator.requests


@pytest.mark.parametrize("option", ["--budget", "--trial-budget"])
@pytest.mark.parametrize("amount", ["abc", "-1"])
def test_an_amount_that_is_none_is_blamed_on_its_option(option, amount, tmp_path):
    assert f"{option}: '{amount}'" in _told(_run(option, amount, cwd=tmp_path))
