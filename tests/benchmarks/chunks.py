"""Instructions that governing adds to one chunk of a stream, beside the bare SDK: counted by callgrind, not timed.

``python tests/benchmarks/chunks.py`` takes the slope between an answer of one chunk and one of some hundred, for both
SDKs and either kind of their clients. ``hosts.py`` has the microseconds.
"""

import asyncio
import gc
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_MARK = "getpgid"  # a function of libc that nothing else calls: callgrind writes a file each time it is entered
CHUNKS = 100
TITLES = ("OpenAI, chunk", "AsyncOpenAI, chunk", "Anthropic, chunk", "AsyncAnthropic, chunk")


def count_all():
    """Read every stream between marks: bare and governed, short and long."""
    import hosts

    hosts.CHUNKS = CHUNKS
    with asyncio.Runner() as runner:
        rows = {title: ways for title, *ways in hosts.sdks(runner)}
        for title in TITLES:
            for way in rows[title]:
                for length in ("few", "many"):
                    way(length)
                    gc.collect()
                    gc.disable()  # a collection looks at the whole process
                    os.getpgid(0)
                    way(length)
                    os.getpgid(0)
                    gc.enable()


def measure():
    """Instructions of a bare chunk, and those that governing adds, by client."""
    here = Path(__file__).resolve()
    path = os.pathsep.join((str(Path.cwd()), str(here.parent)))
    command, environment = [sys.executable, str(here), "--count"], {**os.environ, "PYTHONPATH": path}
    with tempfile.TemporaryDirectory() as folder:
        valgrind = [
            "valgrind", "-q", "--tool=callgrind", f"--dump-before={_MARK}", f"--callgrind-out-file={folder}/out",
        ]  # fmt: skip
        subprocess.run([*valgrind, *command], env=environment, check=True)
        totals = []
        for number in range(2, 8 * len(TITLES) + 1, 2):  # each second file is what lay between two marks
            lines = Path(folder, f"out.{number}").read_text().splitlines()
            totals.append(next(int(line.split()[1]) for line in lines if line.startswith("totals:")))
    for title in TITLES:
        few, many, few_governed, many_governed = (totals.pop(0) for _ in range(4))
        bare = many - few
        yield title, bare // CHUNKS, (many_governed - few_governed - bare) // CHUNKS


if __name__ == "__main__":
    if sys.argv[1:] == ["--count"]:
        count_all()
    else:
        for title, bare, added in measure():
            print(f"{title:24}{bare:>10,}{added:>10,}")
