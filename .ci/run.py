#!/usr/bin/env python3
"""Everything from nothing, in environments of their own: the README's commands, the tests, the linters, the wheel.

Needs Python >= 3.11 with pip, Git, Bash, a package index and the loopback interface. Ends with a table of environments:
what ran, with which Python, for how many minutes. Python 3.12 and 3.13 are tried where they are found, and must be
found where CI=true. Chromium is installed from Debian where it is missing. SIGTERM ends it and everything that it
started. With names of environments as arguments, as they stand in the table, only these are made.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("LLM_COST_DATA") or ROOT.parent / "shared" / "data")
LIMIT_S = 90 * 60
LITELLM = ("1.102.0", "1.108.7", "newest")  # the lowest, the newest whose proxy extra resolves, the newest
HOSTS = (
    "litellm", "openai", "anthropic", "langchain", "langchain-core", "langchain-openai", "langchain-anthropic",
    "langchain-litellm", "genai-prices", "redis",
)  # fmt: skip
HOST_TESTS = (
    "tests/unit/providers", "tests/unit/retry", "tests/test_extras.py", "tests/integrations/sdk",
    "tests/integrations/langchain", "tests/integrations/test_first_contact.py", "tests/cli/test_doctor.py",
)  # fmt: skip
"""What a newer release of a host can break."""
LANGUAGE_TESTS = (
    "tests/unit/test_money.py", "tests/unit/test_usage.py", "tests/unit/test_wire.py", "tests/unit/test_config.py",
    "tests/unit/test_fork.py", "tests/unit/budget", "tests/unit/retry/test_exception_classes.py",
    "tests/unit/retry/test_classify.py", "tests/lifecycle/test_transcripts.py", "tests/lifecycle/test_retries.py",
    "tests/lifecycle/test_escalation.py", "tests/lifecycle/test_fork.py", "tests/conformance/test_memory.py",
    "tests/conformance/test_sqlite.py", "tests/integrations/sdk/test_surface.py",
    "tests/integrations/sdk/test_extra.py",
    "tests/integrations/langchain/test_structured.py", "tests/integrations/langchain/test_callback.py",
    "tests/cli/test_commands.py", "tests/dashboard/test_server.py", "tests/test_public_api.py",
)  # fmt: skip
"""What a newer Python can break, of each kind a sample."""
SLIM_TESTS = ("tests/test_light.py", "tests/test_public_api.py")
"""What must work where LiteLLM and LangChain are not installed."""
SLIM_TOOLS = ("aiohttp", "hypothesis", "pytest", "pytest-asyncio", "pytest-benchmark")
OF_DISTRIBUTION = {
    "chromium": ("chromium", "fonts-dejavu-core"), "pgbouncer": ("pgbouncer",), "redis-server": ("redis-server",),
}  # fmt: skip
"""Commands that the tests start, and the packages of Debian that bring them."""
VERSIONS = """
import importlib.metadata, platform, sys
there = {package.name.lower().replace("_", "-"): package.version for package in importlib.metadata.distributions()}
print("   python", platform.python_version(), *(f"| {name} {there.get(name, '-')}" for name in sys.argv[1:]))
"""


class StepFailedError(Exception):
    """A command of this run ended with something other than 0."""


class Run:
    """What this run has started and what it came to.

    Every command gets a process group of its own, so that nothing it starts outlives a signal to this run.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch, self.started = scratch, time.monotonic()
        self.rows: list[tuple[str, str, str, str]] = []
        self.groups: set[int] = set()
        self.making = threading.Lock()  # one environment serves several rows; the first of them makes it
        self._lock = threading.RLock()  # the handler of a signal may come while it is held
        self._over = False
        self.variables = os.environ | {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUNBUFFERED": "1",
            "UV_PYTHON_DOWNLOADS": "never", "LLM_COST_DATA": str(DATA),
            "PIP_COMPILE": "0",  # all 24,000 modules; the first process that imports one leaves it compiled to the next
        }  # fmt: skip
        # The environment that this run was started from is none of ours, and hosts are compiled once, not by each test.
        for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):
            self.variables.pop(name, None)
        if not DATA.is_dir() and not os.environ.get("LLM_COST_DATA"):
            del self.variables["LLM_COST_DATA"]

    def say(self, text: str) -> None:
        """A line that stays whole, with the seconds since the start."""
        sys.stdout.write(f"[{time.monotonic() - self.started:5.0f} s] {text}\n")
        sys.stdout.flush()

    def call(self, command: Iterable[object], folder: Path, log: Path | None = None, **variables: str) -> None:
        """Run a command to its end; what it prints goes to a log where one is given.

        Raises:
            StepFailedError: It failed, or the run is over.
        """
        words = [str(word) for word in command]
        with log.open("ab") if log else open(os.dup(1), "wb") as out:  # noqa: PTH123 - a descriptor, no path
            with self._lock:
                if self._over:
                    raise StepFailedError("the run is over")
                child = subprocess.Popen(
                    words, cwd=folder, env=self.variables | variables, stdin=subprocess.DEVNULL, stdout=out,
                    stderr=subprocess.STDOUT, process_group=0,
                )  # fmt: skip
                self.groups.add(child.pid)
            try:
                code = child.wait(timeout=max(1.0, LIMIT_S - (time.monotonic() - self.started)))
            except subprocess.TimeoutExpired:
                raise StepFailedError(f"not done within {LIMIT_S // 60} minutes: {shlex.join(words)}") from None
            finally:
                self._end(child.pid)
                child.wait()
        if code:
            raise StepFailedError(f"exit code {code}: {shlex.join(words)[:300]}")

    def stop(self) -> None:
        """End whatever runs, and start nothing more."""
        with self._lock:
            self._over = True
            groups = list(self.groups)
        for group in groups:
            self._end(group)

    def _end(self, group: int) -> None:
        # what a command left in its group goes with it
        with self._lock:
            if group in self.groups:
                self.groups.discard(group)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)

    def environment(self, name: str, work: Callable[[Path], str]) -> bool:
        """Do the work of one environment, which returns its versions; whether it passed. Either way it gets a row."""
        self.say(f"{name}: begins")
        log = self.scratch / f"{re.sub(r'[^a-z0-9.]+', '-', name.lower())}.log"
        began, verdict, versions = time.monotonic(), "passed", ""
        try:
            versions = work(log)
        except (StepFailedError, subprocess.CalledProcessError, OSError, ValueError) as error:
            verdict = f"FAILED: {error}"  # of one environment: the others still get their rows
        minutes = f"{(time.monotonic() - began) / 60:.1f}"
        self.rows.append((name, minutes, verdict, versions))
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        shown = text if verdict != "passed" else _last_lines(text)
        self.say(f"{name}: {verdict}, {minutes} min\n{versions}\n{shown}".rstrip())
        return verdict == "passed"

    def not_run(self, name: str, why: str, *, failed: bool) -> bool:
        """Note an environment that was not tried; returns whether that is allowed."""
        verdict = "FAILED: " * failed + f"NOT RUN: {why}"
        self.rows.append((name, "-", verdict, ""))
        self.say(f"{'!' * 20} {name}: {verdict} {'!' * 20}")
        return not failed

    def table(self) -> str:
        """All environments, with their minutes."""
        head = f"{'environment':<34} {'minutes':>7}  result\n"
        lines = (
            f"{name:<34} {minutes:>7}  {verdict}\n{versions}".rstrip() for name, minutes, verdict, versions in self.rows
        )
        return head + "\n".join(lines) + f"\n{'all':<34} {(time.monotonic() - self.started) / 60:7.1f}"


def _last_lines(text: str) -> str:
    """The words of pytest on failures, skips and the sum."""
    return "\n".join(
        line for line in text.splitlines() if re.match(r"SKIPPED|FAILED|ERROR|=*.*\d+ passed|PASSED ", line)
    )


def versions(python: Path) -> str:
    """The hosts of an environment, as one line."""
    return subprocess.check_output([python, "-c", VERSIONS, *HOSTS], text=True).rstrip()


def _found(command: str) -> str | None:
    return shutil.which(command) or shutil.which(command, path="/usr/sbin")  # where Debian keeps servers


def install_commands(run: Run) -> None:
    """Install what the tests start and this machine lacks, where that can be done; the tests say what they miss."""
    packages = [name for command, names in OF_DISTRIBUTION.items() if not _found(command) for name in names]
    if packages and shutil.which("apt-get") and os.geteuid() == 0:
        quiet, log = {"DEBIAN_FRONTEND": "noninteractive"}, run.scratch / "distribution.log"
        try:
            run.call(["apt-get", "update", "-q"], run.scratch, log, **quiet)
            run.call(
                ["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages], run.scratch, log, **quiet
            )
        except StepFailedError as error:
            run.say(f"{', '.join(packages)}: {error}\n{log.read_text(encoding='utf-8', errors='replace')[-2000:]}")


def copy(run: Run, name: str) -> Path:
    """The tree as it stands, without what Git ignores, as a repository of one commit: what is left behind shows."""
    tree = run.scratch / name
    tree.mkdir()
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for path in filter(None, subprocess.check_output(listed, cwd=ROOT, text=True).split("\0")):
        if (ROOT / path).is_file():  # a file that was removed and not yet committed is listed too
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, tree / path)
    for command in ("init -q", "add -A", "-c user.name=ci -c user.email=ci@localhost commit -q -m copy"):
        subprocess.run(["git", *command.split()], cwd=tree, check=True)
    return tree


def readme_commands() -> tuple[str, str, str]:
    """What a newcomer copies: the only two blocks of shell in the README, the second as install and test."""
    blocks = re.findall(
        r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    demo, tests = (block.strip() for block in blocks)
    return demo, *tests.rsplit(" && ", 1)


def demo(run: Run, log: Path) -> str:
    """The README's first command, in a copy and an environment of its own, to the receipt."""
    tree = copy(run, "demo")
    run.call(["bash", "-c", readme_commands()[0]], tree, log, COLUMNS="120")
    text = log.read_text(encoding="utf-8")
    if "ledger total $" not in text or "= provider's bill $" not in text:
        raise StepFailedError("the demo did not end with its receipt")
    return versions(tree / ".venv/bin/python")


def with_tools(run: Run, tree: Path, log: Path) -> Path:
    """The environment of the whole suite, as the README's second command makes it; the first row that needs it does."""
    tools = tree / ".venv/bin"
    with run.making:
        if not tools.is_dir():
            run.call(["bash", "-c", readme_commands()[1]], tree, log)
    return tools


def suite(run: Run, tree: Path, log: Path) -> str:
    """The tests of the README's second command: the whole suite; its output is shown as it comes."""
    with_tools(run, tree, log)
    run.call(["bash", "-c", readme_commands()[2]], tree)
    changed = subprocess.check_output(["git", "status", "--porcelain"], cwd=tree, text=True)
    if changed:
        raise StepFailedError(f"the tests left files behind:\n{changed}")
    return versions(tree / ".venv/bin/python")


def linters(run: Run, tree: Path, log: Path) -> str:
    """Ruff, mypy and the import contracts."""
    tools = with_tools(run, tree, log)
    for command in ("ruff check .", "ruff format --check .", "mypy", "lint-imports --verbose"):
        words = command.split()
        run.call([tools / words[0], *words[1:]], tree, log)
    return versions(tools / "python")


def wheel(run: Run, tree: Path, log: Path) -> str:
    """The wheel: it has every file of the package, and passes tests where it is installed, away from the source."""
    tools, made = with_tools(run, tree, log), run.scratch / "wheel"
    run.call([tools / "python", "-m", "build", "--no-isolation", "--wheel", "--outdir", made / "dist", "."], tree, log)
    (built,) = (made / "dist").glob("*.whl")
    tracked = subprocess.check_output(["git", "ls-files", "llm_cost_middleware"], cwd=tree, text=True).split()
    if missing := set(tracked) - set(zipfile.ZipFile(built).namelist()):
        raise StepFailedError(f"the wheel lacks {sorted(missing)}")
    run.call([tools / "python", "-m", "venv", made / "venv"], run.scratch, log)
    python = made / "venv/bin/python"
    run.call([python, "-m", "pip", "install", "-q", "--no-deps", built], run.scratch, log)
    purelib = [subprocess.check_output([one, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
               for one in (tools / "python", python)]  # fmt: skip
    # The dependencies were installed for the suite: this environment sees them, and in front of them its own wheel.
    (Path(purelib[1].strip()) / "dependencies.pth").write_text(purelib[0], encoding="utf-8")
    shutil.copytree(tree / "tests", made / "tree/tests", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy2(tree / name, made / "tree" / name)
    proof = f"import llm_cost_middleware as m, sys; sys.exit(not m.__file__.startswith({str(made / 'venv')!r}))"
    run.call([python, "-P", "-c", proof], made / "tree", log)
    names = ("tests/unit", "tests/conformance", "tests/test_public_api.py", "tests/test_extras.py")
    run.call([python, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *names], made / "tree", log)
    return versions(python)


def newest(run: Run, log: Path, interpreter: str, name: str, tests: tuple[str, ...]) -> str:
    """The newest of everything, without constraints and without the proxy extra, which holds LiteLLM back."""
    tree, uv = copy(run, name), run.scratch / "uv/bin/uv"
    run.call([uv, "venv", "-q", "--python", interpreter, tree / ".venv"], tree, log)
    python = tree / ".venv/bin/python"
    run.call([uv, "pip", "install", "-q", "--python", python, "-e", ".[all,tools]"], tree, log)
    run.call([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests], tree, log)
    return versions(python)


def slim(run: Run, log: Path) -> str:
    """The small installation that ``llm-cost help install`` shows, by its own commands, without LiteLLM."""
    tree, uv = copy(run, "slim"), run.scratch / "uv/bin/uv"
    topic = (tree / "llm_cost_middleware/cli/topics/install.md").read_text(encoding="utf-8")
    alone, hosts = (line.partition("#")[0].split()[2:] for line in re.findall(r"^pip install .*", topic, re.MULTILINE))
    if alone != ["--no-deps", "."]:
        raise StepFailedError(f"llm-cost help install shows another way: pip install {' '.join(alone)}")
    run.call([uv, "venv", "-q", "--python", sys.executable, tree / ".venv"], tree, log)
    python = tree / ".venv/bin/python"
    for words in (("--no-deps", "-e", "."), hosts, SLIM_TOOLS):
        run.call([uv, "pip", "install", "-q", "--python", python, *words], tree, log)
    absent = (
        "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ['litellm', 'langchain_core', 'tiktoken'])))"
    )
    run.call([python, "-c", absent], tree, log)
    # not every extra is to be there, as elsewhere where CI is set
    run.call([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SLIM_TESTS], tree, log, CI="")
    return versions(python)


def litellm(run: Run, log: Path, version: str) -> str:
    """LiteLLM's own tests, short form, with one version; they make their environment themselves and print it."""
    tree = copy(run, f"litellm-{version}")
    path = f"{run.scratch / 'uv/bin'}{os.pathsep}{os.environ['PATH']}"
    run.call([sys.executable, "tests/integrations/litellm/try_versions.py", "--short", version], tree, log, PATH=path)
    return "\n".join(re.findall(r"^.*\blitellm \d.*$", log.read_text(encoding="utf-8"), re.MULTILINE))


def interpreter(version: str) -> str | None:
    """A Python of this version that runs: on the path, or among those of pyenv."""
    places = [shutil.which(f"python{version}"), *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    for place in filter(None, places):
        probe = [place, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(probe, capture_output=True, text=True, check=False)  # a shim may answer for nothing
        if done.stdout.strip() == version:
            return str(place)
    return None


def without_data(run: Run, tree: Path, log: Path) -> str:
    """What a newcomer without the recorded data sees: tests that need them are skipped, and say why."""
    python, absent = with_tools(run, tree, log) / "python", run.scratch / "absent"
    run.call([python, "-m", "pytest", "-q", "-rs", "-m", "data and not soak"], tree, log, LLM_COST_DATA=str(absent))
    skips = re.findall(r"^SKIPPED .*", log.read_text(encoding="utf-8"), re.MULTILINE)
    if not skips or [line for line in skips if "LLM_COST_DATA" not in line and "--soak" not in line]:
        raise StepFailedError("a test of recorded data does not name LLM_COST_DATA where they are absent")
    return versions(python)


def everything(run: Run, wanted: list[str]) -> bool:
    """All environments, the longest first, two by two but for the suite, whose tests of time want the whole machine."""
    uv, tree = run.scratch / "uv", copy(run, "tests")
    before: dict[str, Callable[[Path], str]] = {  # installing is the work of one core
        "README, command 2 (installing)": lambda log: versions(with_tools(run, tree, log) / "python"),
        "README, command 1 (demo)": lambda log: demo(run, log),
        "slim": lambda log: slim(run, log),
    }
    alone: dict[str, Callable[[Path], str]] = {"README, command 2 (whole suite)": lambda log: suite(run, tree, log)}
    after: dict[str, Callable[[Path], str]] = {
        "newest of everything": lambda log: newest(run, log, sys.executable, "newest", HOST_TESTS),
    }
    passed = True
    for version in ("3.12", "3.13"):
        found = interpreter(version)
        if found is None:
            must = os.environ.get("CI", "").lower() == "true"
            passed &= run.not_run(f"Python {version}", "no such interpreter here", failed=must)
        else:
            after[f"Python {version}"] = (
                lambda log, at=found, version=version: newest(run, log, at, f"python{version}", LANGUAGE_TESTS)  # type: ignore[misc]
            )
    after["wheel"] = lambda log: wheel(run, tree, log)  # this and the last two in the environment of the suite
    for one in LITELLM:
        after[f"LiteLLM {one}"] = lambda log, one=one: litellm(run, log, one)  # type: ignore[misc]  # bound now
    after["linters"] = lambda log: linters(run, tree, log)
    after["without recorded data"] = lambda log: without_data(run, tree, log)
    known = [*before, *alone, *after]
    if strange := [name for name in wanted if name not in known]:
        raise SystemExit(f"no such environment: {', '.join(strange)}; there are: {', '.join(known)}")
    install_commands(run)
    run.call([sys.executable, "-m", "venv", uv], run.scratch)
    run.call([uv / "bin/python", "-m", "pip", "install", "-q", "uv"], run.scratch)
    for rows, at_once in ((before, 2), (alone, 1), (after, 2)):
        jobs = [(name, work) for name, work in rows.items() if not wanted or name in wanted]
        with ThreadPoolExecutor(at_once) as pool:
            passed &= all(list(pool.map(lambda job: run.environment(*job), jobs)))
    return passed


def main() -> int:
    """Run everything; 0 where all of it passed."""
    scratch = Path(tempfile.mkdtemp(prefix="llm-cost-ci-"))
    run = Run(scratch)

    def ended(number: int, _: object) -> None:
        run.stop()
        shutil.rmtree(scratch, ignore_errors=True)
        os._exit(128 + number)  # threads of the pool still wait for what was just killed

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, ended)
    try:
        passed = everything(run, sys.argv[1:])
    finally:
        run.stop()
        shutil.rmtree(scratch, ignore_errors=True)
    print(run.table(), flush=True)
    print("green" if passed else "RED", flush=True)
    return not passed


if __name__ == "__main__":
    sys.exit(main())
