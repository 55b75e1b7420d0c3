"""The pytest fixture, in a project of its own outside this tree."""

import os
import subprocess
import sys
from pathlib import Path

import llm_cost_middleware

CONFTEST = 'pytest_plugins = ["llm_cost_middleware.testing.fixtures"]\n'
TESTS = """
import anthropic
import openai
import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator import Fault

QUESTION = [{"role": "user", "content": "hello"}]


def test_a_governed_client_is_billed_what_the_ledger_booked(llm_provider_simulator):
    client = openai.OpenAI(base_url=llm_provider_simulator.openai_url, api_key="any")
    with CostPipeline(CostConfig()) as pipeline:
        answer = wrap_openai(client, pipeline).chat.completions.create(model="gpt-5-mini", messages=QUESTION)
        assert answer.choices[0].message.content == "You said: hello"
        booked = pipeline.ledger.balance("global").settled_nanousd
    assert 0 < booked == llm_provider_simulator.bill.total_nanousd


def test_the_next_test_starts_with_an_empty_bill_and_may_script_faults(llm_provider_simulator):
    assert llm_provider_simulator.bill.lines == ()
    llm_provider_simulator.script(Fault.overloaded())
    client = anthropic.Anthropic(base_url=llm_provider_simulator.anthropic_url, api_key="any", max_retries=0)
    with pytest.raises(anthropic.APIStatusError):
        client.messages.create(model="claude-haiku-4-5-20251001", max_tokens=10, messages=QUESTION)
"""


def test_a_project_elsewhere_uses_the_fixture_by_one_line(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_application.py").write_text(TESTS)
    home = str(Path(llm_cost_middleware.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": home, "PYTEST_ADDOPTS": ""}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 passed" in run.stdout
