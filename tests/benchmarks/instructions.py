"""Instructions of a governed call by stage, for trees of this package: counted by callgrind, not timed.

``python tests/benchmarks/instructions.py [TREE …]``, such as a checkout of an older commit and ``.``: one column each.
Each stage is called alone with what the one before it made; the lines under a whole call are parts of it. ``short`` is
500 characters, ``long`` 40 messages of 500 with five tools, and the prompt of every call is new.
"""

import gc
import os
import subprocess
import sys
import tempfile
from pathlib import Path

REPEATS = 40
WARM = 20
STAGES = ("read the request", "route", "first quote", "whole call")
KINDS = ("short", "long")
_MARK = "getpgid"  # a function of libc that nothing else calls: callgrind writes a file each time it is entered


def bodies(kind, count, start=0):
    """Request bodies, each with a text of its own."""
    for number in range(start, start + count):
        text = f"{number:08} " + "x" * 491
        if kind == "short":
            yield {"model": "smart", "messages": [{"role": "user", "content": text}]}
            continue
        turns = [
            {"role": ("user", "assistant")[turn % 2], "content": f"{turn:04} {text}"[:500]} for turn in range(1, 40)
        ]
        turns[-1]["role"] = "user"
        yield {"model": "smart", "messages": [{"role": "system", "content": "y" * 500}, *turns], "tools": tools()}


def tools():
    """Five tools, made anew as an application does that builds its requests."""
    return [
        {
            "type": "function",
            "function": {
                "name": f"look_up_{what}", "description": f"Looks up the {what} of a shipment.",
                "parameters": {
                    "type": "object", "required": ["number"],
                    "properties": {"number": {"type": "string", "description": f"Whose {what}"}},
                },
            },
        }
        for what in ("weight", "owner", "harbour", "price", "sender")
    ]  # fmt: skip


def count_all():
    """Run every stage of every kind between marks."""
    import short_call

    from llm_cost_middleware import CostConfig, CostPipeline
    from llm_cost_middleware.lifecycle.drivers import drive
    from llm_cost_middleware.lifecycle.state import CallReport
    from llm_cost_middleware.providers import get_provider

    both = frozenset({"anthropic", "openai"})
    pipeline = CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": "9000"}]))
    flow = pipeline._flow
    sizing = flow._reserving._sizing
    read = get_provider("openai").read_request

    def quote(call):
        drive(sizing.first_quote(call, CallReport(), call.target), pipeline._runtimes.sync, None)

    def whole(body):
        pipeline.run(read(body), lambda _: short_call.RESULT, providers=both)

    def route(request):
        return flow.route(flow.attributed(request), both)

    for kind in KINDS:
        made = list(bodies(kind, 4 * (WARM + REPEATS)))
        groups = [made[at :: len(STAGES)] for at in range(len(STAGES))]
        requests = [read(body) for body in groups[1]]
        calls = [route(read(body)) for body in groups[2]]
        stages = ((read, groups[0]), (route, requests), (quote, calls), (whole, groups[3]))
        for step, given in ((lambda _: None, requests), *stages):
            for each in given[:WARM]:
                step(each)
            gc.collect()
            gc.disable()  # a collection looks at the whole process
            os.getpgid(0)
            for each in given[WARM:]:
                step(each)
            os.getpgid(0)
            gc.enable()


def measure(tree):
    """Instructions by kind and stage of one tree."""
    here = Path(__file__).resolve()
    path = os.pathsep.join((str(Path(tree).resolve()), str(here.parent)))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"}
    command = [sys.executable, str(here), "--count"]
    subprocess.run(command, env=environment, check=True)  # so that no count includes compiling
    with tempfile.TemporaryDirectory() as folder:
        valgrind = [
            "valgrind", "-q", "--tool=callgrind", f"--dump-before={_MARK}", f"--callgrind-out-file={folder}/out",
        ]  # fmt: skip
        subprocess.run([*valgrind, *command], env=environment, check=True)
        totals = []
        for number in range(1, 4 * len(KINDS) * (len(STAGES) + 1) + 1):
            written = Path(folder, f"out.{number}")
            if not written.exists():
                break
            lines = written.read_text().splitlines()
            totals.append(next(int(line.split()[1]) for line in lines if line.startswith("totals:")))
    spans = totals[1::2]  # each second file is what lay between two marks
    found = {}
    for kind in KINDS:
        empty, *counts = (spans.pop(0) for _ in range(len(STAGES) + 1))
        for stage, count in zip(STAGES, counts, strict=True):
            found[kind, stage] = (count - empty) // REPEATS
    return found


if __name__ == "__main__":
    if sys.argv[1:] == ["--count"]:
        count_all()
    else:
        columns = [measure(tree) for tree in sys.argv[1:] or ["."]]
        for row in columns[0]:
            print(f"{row[0]:6} {row[1]:18}", *(f"{column[row]:>11,}" for column in columns))
