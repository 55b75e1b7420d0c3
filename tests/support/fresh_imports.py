"""What a fresh process takes to import something, its compiled modules being there already."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path


def environment(tree, compiled):
    """That of a process that finds the package in a tree, and its compiled modules in a folder."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPATH": str(Path(tree).resolve()), "PYTHONPYCACHEPREFIX": compiled, "PYTHONSAFEPATH": "1"}


def least(statement, env, runs):
    """The least seconds of CPU, and of the clock, that a process takes to run the statement."""
    found = []
    for _ in range(runs):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], env=env, check=True)
        took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.append((cpu, took))
    return min(cpu for cpu, _ in found), min(took for _, took in found)
