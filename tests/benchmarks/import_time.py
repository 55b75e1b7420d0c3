"""What ``from llm_cost_middleware import CostPipeline`` takes, beside parts of the standard library, in the same run.

``python tests/benchmarks/import_time.py [TREE …]``, such as a checkout of an older commit and ``.``. The compiled
modules lie in a folder of their own and are there before anything is counted, so that compiling is not. Milliseconds
are CPU, the least of some runs, and of this machine; instructions are counted by callgrind, where it is installed.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))  # run as a script, not by pytest

from fresh_imports import environment, least

RUNS = 8
PLAIN = ("pass", "import json, asyncio, sqlite3")
OURS = (
    "import llm_cost_middleware",
    "from llm_cost_middleware import CostPipeline",
    "from llm_cost_middleware import CostPipeline; CostPipeline()",
)


def instructions(statement, env):
    """Instructions of a process that runs the statement; ``None`` without callgrind."""
    if shutil.which("valgrind") is None:
        return None
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, "-c", statement]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return int(re.search(r"Collected : (\d+)", done.stderr)[1])


def main(trees):
    sys.stdout.write(f"{sys.version}\n")
    for tree in trees:
        with tempfile.TemporaryDirectory() as compiled:
            env = environment(tree, compiled)
            for statement in (*PLAIN, *OURS):
                least(statement, env, runs=1)  # compiles
                cpu, took = least(statement, env, RUNS)
                counted = instructions(statement, env)
                told = f"{counted / 1e6:9.1f} million instructions" if counted is not None else ""
                sys.stdout.write(f"{1e3 * cpu:8.1f} ms CPU {1e3 * took:8.1f} ms {told}  {statement}\n")
            sys.stdout.write(f"in {Path(tree).resolve().name}\n\n")


if __name__ == "__main__":
    main(sys.argv[1:] or ["."])
