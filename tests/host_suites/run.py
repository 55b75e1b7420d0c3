"""The hosts' own test suites, once bare and once with this package in place: ``python tests/host_suites/run.py``.

Takes the source distribution of each host at the version that is installed here from the package index, runs the tests
that need no provider, and compares. Every test that passes bare and not with us must stand in ``differences.toml``
with its class and its reason; another one ends the script with status 1. Needs the package index and loopback, and
takes a quarter of an hour; it is no part of the ordinary tests.

Options: names of suites to run (all of them by default), ``--work FOLDER`` to keep what was fetched, ``--write`` to
write the figures to ``tests/benchmarks/results/host_suites.json``.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
import venv
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RESULTS = ROOT / "tests" / "benchmarks" / "results" / "host_suites.json"
TOOLS = (
    "blockbuster", "dirty-equals", "http-snapshot", "inline-snapshot", "nest-asyncio", "pytest-asyncio",
    "pytest-benchmark", "pytest-mock", "pytest-socket", "pytest-timeout", "respx", "syrupy",
    "time-machine", "toml", "trio", "vcrpy",
)  # fmt: skip
"""What the suites import beside their hosts."""


class Suite(NamedTuple):
    """The tests of one host that need neither a provider nor a generated mock of one."""

    distribution: str
    paths: tuple[str, ...]
    options: tuple[str, ...] = ()


_SDK = ("--ignore=tests/api_resources", "-p", "no:xdist")
SUITES = {
    "anthropic": Suite("anthropic", ("tests/test_client.py", "tests/test_streaming.py", "tests/test_response.py",
                                     "tests/test_prepare.py", "tests/lib/streaming",
                                     "tests/lib/tools/test_runners.py", "tests/lib/tools/test_functions.py",
                                     "tests/lib/tools/test_runner_eager_tools.py", "tests/lib/_parse",
                                     "tests/lib/test_client_copy.py",
                                     "tests/lib/test_scoped_client.py"), _SDK),
    "openai": Suite("openai", ("tests/test_client.py", "tests/test_streaming.py", "tests/test_response.py",
                               "tests/test_legacy_response.py", "tests/test_module_client.py",
                               "tests/test_retry_after_overflow.py", "tests/test_sse_framing.py",
                               "tests/test_httpx_compat.py", "tests/test_httpx2.py", "tests/lib/chat",
                               "tests/lib/responses", "tests/lib/streaming",
                               "tests/lib/test_realtime_websocket_contract.py",
                               "tests/lib/test_websocket_entry_cleanup.py",
                               "tests/test_websocket_connection_options.py"), _SDK),
    "langchain-anthropic": Suite("langchain-anthropic", ("tests/unit_tests",)),
    "langchain-openai": Suite("langchain-openai", ("tests/unit_tests",)),
    "langchain": Suite("langchain", ("tests/unit_tests/agents", "tests/unit_tests/chat_models")),
}  # fmt: skip


class Outcome(NamedTuple):
    """How the tests of one run ended, by their names."""

    tests: dict[str, str]

    def count(self, *states: str) -> int:
        """How many ended in one of these ways."""
        return sum(state in states for state in self.tests.values())


def main() -> int:
    """Run the suites; the status is 1 where a difference is not classified."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("suites", nargs="*", help=f"of {', '.join(SUITES)}")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    table = tomllib.loads((HERE / "differences.toml").read_text())
    work = given.work or Path(tempfile.mkdtemp(prefix="host-suites-"))
    python = environment(work / "env")
    figures, unknown = {}, []
    for name in given.suites or SUITES:
        suite = SUITES[name]
        folder = fetched(python, suite.distribution, work / "sources")
        bare, ours = (run(python, name, suite, folder, work, governed=governed) for governed in (False, True))
        broken = [test for test, state in bare.tests.items() if state == "passed" and ours.tests.get(test) != "passed"]
        classes: dict[str, int] = {}
        for test in broken:
            kind = class_of(table.get(name, []), test)
            if kind is None:
                unknown.append(f"{name}: {test}: {ours.tests.get(test, 'not run')}")
            classes[kind or "not classified"] = classes.get(kind or "not classified", 0) + 1
        figures[name] = {
            "version": version(suite.distribution), "passed_bare": bare.count("passed"),
            "passed_with_us": bare.count("passed") - len(broken), "failed_bare": bare.count("failed"),
            "differences": classes,
        }  # fmt: skip
        print(json.dumps({name: figures[name]}), flush=True)
    print("\n".join(unknown))
    if given.write:
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps({**kept, **figures}, indent=2) + "\n")
    return 1 if unknown else 0


def environment(folder: Path) -> Path:
    """An environment that sees the hosts of this one, and has what the suites import beside them."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        site = next(folder.glob("lib/python*/site-packages"))
        (site / "hosts.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        subprocess.run([python, "-m", "pip", "install", "-q", *TOOLS], check=True)
    return python


def fetched(python: Path, distribution: str, folder: Path) -> Path:
    """The unpacked source distribution of an installed host."""
    wanted = f"{distribution}=={version(distribution)}"
    made = folder / f"{distribution.replace('-', '_')}-{version(distribution)}"
    if not made.exists():
        subprocess.run(
            [python, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", distribution, "-d", folder, wanted],
            check=True,
        )
        (archive,) = folder.glob(f"{made.name}.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
    if not (made / "tests").is_dir():
        raise SystemExit(f"the source distribution of {wanted} carries no tests")
    return made


def run(python: Path, name: str, suite: Suite, folder: Path, work: Path, *, governed: bool) -> Outcome:
    """Run a suite, with or without us."""
    report = work / f"{name}-{'ours' if governed else 'bare'}.xml"
    plugin = ("-p", "drop_in") if governed else ()
    environ = {
        **os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(HERE))), "LLM_COST_DROP_IN": name,
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    paths = [path for path in suite.paths if (folder / path).exists()]
    command = [
        python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", "-W", "ignore",
        "--tb=line", "--timeout=60", "-o", "addopts=", "-o", "filterwarnings=", f"--junitxml={report}", *plugin,
        *suite.options, *paths,
    ]  # fmt: skip
    log = report.with_suffix(".log")
    with log.open("w") as output:
        subprocess.run(command, cwd=folder, env=environ, stdout=output, stderr=output, check=False, timeout=3_000)
    if not report.exists():
        raise SystemExit(f"{name} could not be run:\n{log.read_text()[-2_000:]}")
    return Outcome({test_name(case): state_of(case) for case in ET.parse(report).iter("testcase")})  # noqa: S314 - as above


def test_name(case: ET.Element) -> str:
    """The name of a test, without addresses in its parameters."""
    name = f"{case.get('classname')}::{case.get('name')}"
    return re.sub(r"0x[0-9a-f]+", "0x", name)


def state_of(case: ET.Element) -> str:
    """How a test ended."""
    found = {child.tag for child in case}
    return "failed" if found & {"failure", "error"} else "skipped" if "skipped" in found else "passed"


def class_of(rows: list[dict[str, str]], test: str) -> str | None:
    """The class of a difference, by the first row that matches the test's name."""
    return next((row["class"] for row in rows if fnmatch.fnmatchcase(test, row["test"])), None)


if __name__ == "__main__":
    sys.exit(main())
