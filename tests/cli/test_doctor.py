"""``llm-cost doctor`` tries what it reports."""

import os
import subprocess
import sys
from pathlib import Path

import llm_cost_middleware
from llm_cost_middleware import Ledger

ROOT = str(Path(llm_cost_middleware.__file__).parents[1])
RUN = "import sys; sys.argv = ['llm-cost', 'doctor', '--strict']; from llm_cost_middleware.cli import main; main()"


def doctor(folder, *path):
    """Its rows by what they are about, from a process of its own."""
    environment = os.environ | {"COLUMNS": "400", "PYTHONPATH": os.pathsep.join((*map(str, path), ROOT))}
    environment.pop("LLM_COST_CONFIG", None)
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert not done.stderr, done.stderr
    cells = ([cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if "│" in line)
    return [tuple(row) for row in cells], done.returncode


def finding(rows, what):
    return [(state, text) for state, name, text in rows if name == what][-1]  # a provider's key has a row before


def test_a_package_whose_door_does_not_open_is_a_no_with_its_reason(tmp_path):
    stub = tmp_path / "stub"
    (stub / "litellm").mkdir(parents=True)
    (stub / "litellm" / "__init__.py").write_text("raise TypeError('Router cannot be subclassed')")
    (stub / "redis.py").write_text("import os; os._exit(7)")
    rows, code = doctor(tmp_path, stub)
    state, text = finding(rows, "litellm")
    assert (state, code) == ("no", 1)
    assert text.endswith("no CostAwareRouter: TypeError: Router cannot be subclassed")
    state, text = finding(rows, "redis")
    assert state == "no"
    assert "ended with status 7" in text
    for whole in ("openai", "anthropic", "langchain", "langchain-openai"):
        assert finding(rows, whole)[0] == "ok", rows


def test_the_configured_ledger_is_opened_and_never_made(tmp_path):
    from llm_cost_middleware.cli.doctor import _ledger
    from llm_cost_middleware.config import CostConfig

    def told(url):
        path = tmp_path / "llm-cost.toml"
        path.write_text(f'[ledger]\nurl = "{url}"\n')
        ((state, _, text),) = _ledger(path, CostConfig.from_toml(path, env={}))
        return state.partition("]")[2].partition("[")[0], text

    file = tmp_path / "ledger.db"
    assert told(f"sqlite:///{file}") == ("ok", f"sqlite:///{file}: made by the first call")
    assert not file.exists()
    file.write_text("no database, and longer than the header of one" * 10)
    assert told(f"sqlite:///{file}")[0] == "no"
    assert told(f"sqlite:///{tmp_path}/absent/ledger.db")[0] == "no"
    file.unlink()
    Ledger.open(f"sqlite:///{file}").close()
    assert told(f"sqlite:///{file}") == ("ok", f"sqlite:///{file}: opens")
