"""The README says what is true."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from llm_cost_middleware import CostConfig, CostPipeline, Ledger, TokenUsage, providers
from llm_cost_middleware.budget.backends.memory import MemoryBackend
from llm_cost_middleware.budget.ledger import schemes
from llm_cost_middleware.request import NO_CONTEXT, ModelRef
from llm_cost_middleware.system_clock import SystemClock
from llm_cost_middleware.usage import BilledItem, UsageReport

README = Path(__file__).resolve().parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_first_code_stands_on_the_first_screen():
    assert TEXT.splitlines().index("```python") < 30


def test_two_commands_do_everything():
    demo, tests = (block.strip() for block in _blocks("sh"))
    assert demo.endswith("llm-cost demo")
    assert tests.endswith("pytest -q -n auto --dist loadfile")
    assert "\n" not in demo + tests


def test_every_extra_is_in_the_table():
    project = README.with_name("pyproject.toml")
    extras = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    table = TEXT.split("## Install it")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([a-z]+)`", row)} == extras.keys()


def test_every_python_block_parses():
    for block in _blocks("python"):
        compile(block, "README.md", "exec")


class Seen(NamedTuple):
    events: list

    def on_event(self, event):
        self.events.append(event)


def test_parts_of_ones_own_are_registered_as_written():
    from llm_cost_middleware.cli.help import topics

    (block,) = re.findall(r"^```python\n(.*?)^```", topics()["extending"], re.MULTILINE | re.DOTALL)
    seen = []
    names = {"CostPipeline": CostPipeline, "Ledger": Ledger, "ModelRef": ModelRef, "providers": providers}
    names |= {
        "config": CostConfig(),
        "MyObserver": lambda: Seen(seen),
        "MyBackend": lambda: MemoryBackend(SystemClock()),
    }
    names |= {"open_my_backend": lambda options: MemoryBackend(options.clock or SystemClock())}
    names |= {"usage": UsageReport((BilledItem(TokenUsage(uncached_input=8)),)), "context": NO_CONTEXT}
    try:
        exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - the example under test
        with Ledger.open("mydb://somewhere") as ledger:
            assert not ledger.blocks
        assert "toy" in providers.NAMES
        assert names["pipeline"].tracker.total_cost > 0
        names["pipeline"].ungoverned("something", "advice")
        assert [type(event).__name__ for event in seen] == ["Ungoverned"]
    finally:
        schemes._schemes.pop("mydb", None)
        providers._PACKAGES.pop("toy", None)
        providers.foreign_cache_fields.cache_clear()


def test_every_topic_that_is_named_exists():
    from llm_cost_middleware.cli.help import topics

    known, text = topics(), TEXT + "".join(topics().values())
    named = set(re.findall(r"`(?:llm-cost )?help ([a-z-]+)`", TEXT))
    named |= set(re.findall(r"llm-cost help ([a-z-]+)`", text))
    assert len(named) >= 7
    assert named <= known.keys()
    assert all(len(body.splitlines()[0]) < 60 and body.startswith("# ") for body in known.values())


def test_every_command_named_in_it_exists():
    named = set(
        re.findall(r"`(?:llm-cost )?([a-z][a-z-]+)(?: FILE)?`", TEXT.split("## The command line")[1].split("##")[0])
    )
    code = "import sys; sys.argv = ['llm-cost', '--help']; from llm_cost_middleware.cli import main; main()"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    listed = set(re.findall(r"^\W+([a-z][a-z-]+)\s{2,}", shown, re.MULTILINE))
    assert {"demo", "report", "replay"} <= named
    assert named - {"set", "raise", "list"} <= listed


def test_every_room_in_the_table_exists():
    package = README.parent / "llm_cost_middleware"
    if not package.is_dir():
        pytest.skip("the source tree is not here")
    for room in re.findall(
        r"^\| [^|]+ \| ([^|]+) \|", TEXT.split("## How it holds")[1].split("\n## ")[0], re.MULTILINE
    )[2:]:
        for path in re.findall(r"`([^`]+)`", room):
            assert (package / path).exists(), path
