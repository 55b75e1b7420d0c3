"""What an installation weighs: ``python tests/benchmarks/bench_install.py [--before COMMIT] [EXTRA ...]``.

Makes an environment for each extra with uv, from the tree and from an older commit, and prints megabytes, packages and
seconds of CPU to import. Nothing is compiled ahead; imports are the best of three with compiled files.

``--resolved`` installs nothing: uv names the packages of each extra, and their files are weighed in the environment
that this runs in, which must have all of them (the last column counts those of another version).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SLIM = ("genai-prices", "msgspec", "openai", "anthropic", "rich", "typer")
LEFT_OUT = {"tools", "test"}
IMPORTS = {
    "plain": "llm_cost_middleware.integrations.litellm.router", "slim": "llm_cost_middleware.cli.app",
    "langchain": "llm_cost_middleware.integrations.langchain.agents", "redis": "redis", "postgres": "psycopg",
    "otel": "opentelemetry.sdk.trace", "alerts": "apprise", "learn": "sklearn.linear_model", "aws": "boto3",
    "google": "google.auth", "proxy": "llm_cost_middleware.integrations.litellm.proxy",
    "demo": "llm_cost_middleware.simulator", "notebooks": "matplotlib", "all": "llm_cost_middleware",
}  # fmt: skip
"""What whoever asked for the extra imports."""
TIMED = """
import os, sys, time
began = time.process_time()
__import__(sys.argv[1])
print(time.process_time() - began, flush=True)
os._exit(0)
"""


def measured(folder: Path, tree: Path, name: str) -> str:
    """Megabytes, packages and seconds of one environment, as columns."""
    place, extra = folder / "venv", f"[{name}]" if name not in {"plain", "slim"} else ""
    install = ["uv", "pip", "install", "-q", "--link-mode", "copy", "--python", str(place)]
    subprocess.run(["uv", "venv", "-q", "--clear", "--python", sys.executable, str(place)], check=True)
    if name == "slim":
        subprocess.run([*install, "--no-deps", str(tree)], check=True)
        subprocess.run([*install, *SLIM], check=True)
    else:
        subprocess.run([*install, f"{tree}{extra}"], check=True)
    (packages,) = (place / "lib").glob("python*/site-packages")
    size = sum(path.lstat().st_size for path in packages.rglob("*") if path.suffix != ".pyc") / 1e6
    count = sum(1 for _ in packages.glob("*.dist-info"))
    command = [str(place / "bin/python"), "-W", "ignore", "-c", TIMED, IMPORTS[name]]
    times = []
    for _ in range(4):  # the first compiles
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        )
        times.append(float(done.stdout) if done.returncode == 0 else None)
    best = "-" if None in times else f"{min(times[1:]):.2f}"
    return f"{size:>8.0f} {count:>9} {best:>8}"


def resolved(tree: Path, name: str) -> str:
    """Megabytes and packages of an extra, without an installation; and how many lie here in another version."""
    command = ["uv", "pip", "compile", "-q", "--no-annotate", "--no-header", "--python", sys.executable]
    extra = ["--extra", name] if name != "plain" else []
    told = subprocess.run(
        [*command, *extra, str(tree / "pyproject.toml")], check=True, capture_output=True, text=True
    ).stdout
    wanted = [re.split(r"==| ;", line)[:2] for line in told.splitlines() if "==" in line]
    size, other = 0, 0
    for package, version in wanted:
        there = distribution(package)
        other += there.version != version.strip()
        files = (Path(there.locate_file(file)) for file in there.files or () if file.suffix != ".pyc")
        size += sum(file.lstat().st_size for file in files if file.exists())
    return f"{size / 1e6:>8.0f} {len(wanted) + 1:>9} {other:>8}"  # one more: the package itself


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", default="215ffdb", help="The commit to compare with.")
    parser.add_argument("--resolved", action="store_true", help="Weigh what is installed here.")
    parser.add_argument("extras", nargs="*")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        before = folder / "before"
        before.mkdir()
        archive = subprocess.run(["git", "archive", given.before], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x"], cwd=before, input=archive, check=True)
        known = {}
        for tree in (before, ROOT):
            project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            known[tree] = ["plain", *(name for name in project["optional-dependencies"] if name not in LEFT_OUT)]
        known[ROOT].insert(1, "slim")
        if given.resolved:
            known[ROOT].remove("slim")
        last = "other" if given.resolved else "import s"
        head = f"{'MB':>8} {'packages':>9} {last:>8}"
        print(f"Python {sys.version.split()[0]}; MB without compiled files; before: {given.before}\n")
        print(f"{'':10} {'before':>27} {'after':>27}\n{'':10} {head} {head}")
        for name in given.extras or known[ROOT]:
            columns = [
                f"{'-':>8} {'-':>9} {'-':>8}" if name not in known[tree]
                else resolved(tree, name) if given.resolved
                else measured(folder, tree, name)
                for tree in (before, ROOT)
            ]  # fmt: skip
            print(f"{name:10} {' '.join(columns)}", flush=True)


if __name__ == "__main__":
    main()
