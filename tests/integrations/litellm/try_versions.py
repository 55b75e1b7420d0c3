"""Run the tests of this folder with the lowest LiteLLM that ``pyproject.toml`` allows, and with the newest.

Run it where a package index answers; it needs ``uv`` and takes some minutes and half a gigabyte for each::

    python tests/integrations/litellm/try_versions.py [lowest-direct] [highest] [-- pytest arguments]

Each gets a temporary environment of its own, in which every dependency of the package is as low (or as high) as the
others let it be. The versions and pytest's own words are printed; the exit code says whether all passed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
TOOLS = ("hypothesis>=6.100", "pytest>=9.0.3", "pytest-asyncio>=1.3", "pytest-benchmark>=5")
TELLING = ("litellm", "openai", "anthropic", "langchain-litellm", "langchain-core", "fastapi", "uvicorn", "aiohttp")
VERSIONS = """
import importlib.metadata, sys
there = {package.name for package in importlib.metadata.distributions()}
print(*(f"{name} {importlib.metadata.version(name)}" for name in sys.argv[1:] if name in there), sep=", ")
"""
EXTRAS = {"lowest-direct": (("proxy",), ("proxy", "langchain")), "highest": (("proxy", "langchain"),)}
"""LangChain asks for higher versions than this package does: the lowest are tried without it too."""


def attempt(resolution: str, extras: tuple[str, ...], arguments: list[str]) -> int:
    """Install and test; returns the exit code of pytest."""
    with tempfile.TemporaryDirectory(prefix="versions-") as folder:
        python = Path(folder) / "bin" / "python"
        subprocess.run(["uv", "venv", "-q", "--python", sys.executable, folder], check=True)
        needed = ["-r", str(ROOT / "pyproject.toml"), *(f"--extra={extra}" for extra in extras), *TOOLS]
        install = ["uv", "pip", "install", "-q", "--python", str(python), "--resolution", resolution, *needed]
        subprocess.run(install, check=True)
        environment = os.environ | {"PYTHONPATH": str(ROOT), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        print(f"\n{resolution}, {' and '.join(extras)}:", flush=True)
        subprocess.run([str(python), "-c", VERSIONS, *TELLING], check=True)
        command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE), *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    given = sys.argv[1:]
    cut = given.index("--") if "--" in given else len(given)
    wanted = given[:cut] or tuple(EXTRAS)
    sys.exit(max(attempt(name, extras, given[cut + 1 :]) for name in wanted for extras in EXTRAS[name]))
