"""Run the tests of this folder with other versions of LiteLLM: the lowest that is supported, and the newest.

Run it where a package index answers; it needs ``uv``, and half a gigabyte for each version::

    python tests/integrations/litellm/try_versions.py [1.102.0] [1.108.7] [newest] [lowest-direct] [--short] [-- pytest]

A version, or ``newest``, is resolved with all else as new as it may be; ``lowest-direct`` with each dependency of the
package as low as it may be; the path of a Python runs what is there. Each gets a temporary environment of its own. The
proxy's extra is taken along where it exists for that very version: it holds ``newest`` back, so it is never part of
that. Without arguments the three that are supported by promise are run. ``--short``: the race, the classification of
every method, every method and route by a sample of the names, a slice of the calls, and the demo. The versions that
were resolved and pytest's own words are printed; the exit code says whether all passed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PROMISED = ("1.102.0", "1.108.7", "newest")
TOOLS = ("hypothesis>=6.100", "pytest>=9.0.3", "pytest-asyncio>=1.3", "pytest-benchmark>=5", "pytest-timeout>=2")
HOSTS = ("litellm", "openai", "anthropic", "langchain", "langchain-core", "langchain-litellm", "langchain-openai",
         "langchain-anthropic", "genai-prices", "redis", "fastapi", "httpx", "httpx2", "pydantic")  # fmt: skip
RESOLVED = """
import importlib.metadata, platform, sys
there = {package.name.lower() for package in importlib.metadata.distributions()}
print(*(f"{name} {importlib.metadata.version(name)}" if name in there else f"no {name}" for name in sys.argv[1:]),
      "python " + platform.python_version(), sep=", ", flush=True)
"""
SHORT = (
    "tests/integrations/litellm/test_race.py::test_fifty_threads_send_exactly_the_five_that_fit",
    "tests/integrations/litellm/test_race.py::test_fifty_tasks_send_exactly_the_five_that_fit",
    "tests/integrations/litellm/test_stand_in.py::test_every_public_method_of_the_router_is_governed_reported_or_known_to_cost_nothing",
    "tests/integrations/litellm/test_stand_in.py::test_a_given_routers_fallbacks_are_made_here_each_with_a_reservation",
    "tests/integrations/litellm/test_stand_in.py::test_what_was_deprecated_is_used_only_where_nothing_else_is_there",
    "tests/integrations/litellm/test_names.py",
    "tests/integrations/litellm/test_own_prices.py",
    "tests/integrations/litellm/test_every_method.py",
    "tests/integrations/litellm/test_every_route.py",
    "tests/integrations/litellm/test_router.py::test_answers_and_streams_are_booked_at_their_price[claude-sonnet-4-6-completion]",
    "tests/integrations/litellm/test_router.py::test_answers_and_streams_are_booked_at_their_price[gpt-5-mini-aresponses]",
    "tests/integrations/litellm/test_embeddings.py::test_as_many_are_sent_as_are_held",
    "tests/cli/test_demo.py::test_the_packaged_excerpt_ends_in_a_receipt_that_is_the_bill",
)


def requirements(version: str) -> list[str]:
    """What uv is to install for a version, beside the package's own dependencies."""
    if version == "lowest-direct":
        return ["--resolution", "lowest-direct", "--extra=proxy"]
    if version == "newest":
        return ["--resolution", "highest", "--extra=langchain", "--extra=demo", "litellm"]
    return ["--resolution", "highest", "--extra=langchain", "--extra=demo", f"litellm[proxy]=={version}"]


def run(python: str, arguments: list[str], *, short: bool) -> int:
    """Print what an environment holds and run the tests in it; returns the exit code of pytest."""
    subprocess.run([python, "-c", RESOLVED, *HOSTS], check=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    chosen = [*SHORT] if short else [str(HERE), SHORT[-1]]
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen, *arguments]
    began = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    print(f"{time.monotonic() - began:.0f} s, exit code {code}", flush=True)
    return code


def attempt(version: str, arguments: list[str], *, short: bool) -> int:
    """Install a version and test it; of the path of a Python, only test."""
    print(f"\n{version}:", flush=True)
    if os.sep in version:
        return run(version, arguments, short=short)
    with tempfile.TemporaryDirectory(prefix="versions-") as folder:
        python = str(Path(folder) / "bin" / "python")
        subprocess.run(["uv", "venv", "-q", "--python", sys.executable, folder], check=True)
        needed = ["-r", str(ROOT / "pyproject.toml"), *requirements(version), *TOOLS]
        subprocess.run(["uv", "pip", "install", "-q", "--python", python, *needed], check=True)
        return run(python, arguments, short=short)


def main(given: list[str]) -> int:
    """The exit code over every version asked for."""
    cut = given.index("--") if "--" in given else len(given)
    short = "--short" in given[:cut]
    versions = [name for name in given[:cut] if name != "--short"] or list(PROMISED)
    return max([attempt(version, given[cut + 1 :], short=short) for version in versions])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
