"""What a command imports: the packages of the command line and of what it is for, and no host that it does not use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import lone_commands
import openai
import pytest
from batch_bodies import chat_bodies
from command_line import whole_command_line

import llm_cost_middleware
from llm_cost_middleware.batches import BatchPendingError
from llm_cost_middleware.cli.commands import COMMANDS as LISTED
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.simulator import BatchPace, Simulator, fill

PACKAGE = Path(llm_cost_middleware.__file__).parent
ALWAYS = {"genai_prices", "httpx2", "msgspec", "rich", "tiktoken", "typer"}
LEARN = {"numpy", "pandas", "pyarrow", "scipy", "sklearn"}
OPENAI = {"openai", "aiohttp"}  # aiohttp where it is installed
SAMPLE = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 20}
EXPORT = {"object": "page", "data": [], "has_more": False, "next_page": None}
COMMANDS = {
    "advise": "", "alerts check": "", "alerts list": "", "alerts test": "", "batches list": "", "batches show": "BATCH",
    "budgets": "", "budgets export": "", "budgets history": "", "budgets list": "", "budgets raise": "global 9",
    "budgets remove": "global", "budgets set": "team:a 5", "budgets sweep": "", "cache": "", "dashboard": "--port 0",
    "decisions": "", "estimate": "request.json", "export focus": "--to focus.csv", "help": "", "init": "new.toml",
    "ledger archive": "--before 30d --to archived", "ledger backup": "copy.db", "ledger erase": "team:a",
    "ledger prune": "--before 30d", "ledger reconcile": "none 1", "ledger restore": "archived restored.db",
    "ledger status": "", "ledger unconfirmed": "", "litellm-config": "", "monitoring": "watch",
    "pause": "global",
    "prices": "gpt-5-mini", "reconcile": "export.json", "replay": "--policy llm-cost.toml", "report": "",
    "resume": "global", "tune": "",
    "batches cancel": "BATCH", "batches collect": "BATCH", "doctor": "", "demo": "--limit 1",
}  # fmt: skip
"""A use of each command."""
REFUSES = {"ledger reconcile", "ledger restore", "reconcile"}
"""They want what is not here: the reservation of a process that died, an archive, an export with a line in it."""
MAY_IMPORT = {
    "batches cancel": OPENAI, "batches collect": OPENAI, "batches show": OPENAI, "tune": LEARN, "replay": LEARN,
    "demo": {"aiohttp", "anthropic", "httpx", "langchain_anthropic", "langchain_core", "langchain_openai", "litellm",
             "openai", "opentelemetry", "opentelemetry.sdk", "httpx2", "numpy"},
}  # fmt: skip
LONG = {"demo", "doctor"}
"""They try every host, ``doctor`` in processes of its own: seconds each."""


def every(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                yield " ".join((*path, name))
            yield from every(command, (*path, name))
        else:
            yield " ".join((*path, name))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a configuration, a ledger and a batch on its way, and the id of that."""
    folder = tmp_path_factory.mktemp("commands")
    with Simulator(responder=fill) as sim:
        sim.batch_pace = BatchPace(delay_s=7_200)
        text = f'[ledger]\nurl = "sqlite:///{folder}/ledger.db"\n[[budgets]]\nscope = "global"\nlimit = "5"\n'
        text += '[[alerts]]\nwhen = "threshold"\nto = ["log"]\n'
        text += f'[providers.openai]\nbase_url = "{sim.openai_url}"\n'
        (folder / "llm-cost.toml").write_text(text)
        (folder / "request.json").write_text(json.dumps(SAMPLE))
        (folder / "export.json").write_text(json.dumps(EXPORT))
        with (
            CostPipeline(str(folder / "llm-cost.toml")) as pipeline,
            openai.OpenAI(base_url=sim.openai_url, api_key="key") as client,
            pytest.raises(BatchPendingError) as caught,
        ):
            pipeline.batch(chat_bodies(12), client=client, timeout=0)
        (folder / "llm-cost.toml").write_text(text.replace(f"{folder}/", ""))
        yield folder, caught.value.batch_id


def run(place, commands):
    folder, batch = place
    lists = [[*name.split(), *COMMANDS[name].replace("BATCH", batch).split()] for name in commands]
    support = Path(lone_commands.__file__)
    environment = os.environ | {
        "PYTHONPATH": f"{PACKAGE.parent}{os.pathsep}{support.parent}", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OPENAI_API_KEY": "key", "COLUMNS": "200",
    }  # fmt: skip
    settings = json.dumps({"folder": str(folder), "commands": lists})
    done = subprocess.run(
        [sys.executable, support, settings], env=environment, capture_output=True, text=True, check=False
    )
    found = [json.loads(line[1:]) for line in done.stdout.splitlines() if line.startswith("@")]
    assert [one["words"] for one in found] == lists, done.stderr
    return dict(zip(commands, found, strict=True))


def check(found):
    wrong = {name: one["text"] for name, one in found.items() if one["code"] not in (0, 1) and name not in REFUSES}
    assert not wrong
    beyond = {name: set(one["loaded"]) - ALWAYS - MAY_IMPORT.get(name, set()) for name, one in found.items()}
    assert not {name: packages for name, packages in beyond.items() if packages}


def test_every_command_is_run():
    assert COMMANDS.keys() == set(every(whole_command_line()))


def test_the_list_of_commands_says_what_they_say_themselves_and_imports_none():
    said = {name: command.help.partition("\n\n")[0] for name, command in whole_command_line().commands.items()}
    assert said == LISTED
    code = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); from llm_cost_middleware import cli; "
    code += "cli.main()"
    listed = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True).stdout
    assert all(name in listed for name in LISTED)
    for module in ("config", "budget", "lifecycle", "cli.report", "cli.loading"):
        assert f"llm_cost_middleware.{module}" not in listed.split()


def test_no_command_imports_a_host_that_it_does_not_use(place):
    check(run(place, [name for name in COMMANDS if name not in LONG]))


@pytest.mark.soak
@pytest.mark.litellm
def test_no_command_that_tries_every_host_imports_another(place):
    check(run(place, sorted(LONG)))
