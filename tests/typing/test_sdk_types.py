"""Both checkers see the wrapped clients' methods with their original signatures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def run(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_mypy_sees_the_sdks_own_signatures():
    checked = run(sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(HERE / "api_sdk.py"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_pyright_sees_the_sdks_own_signatures():
    checked = run(
        sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(HERE / "api_sdk.py")
    )
    report = json.loads(checked.stdout)
    errors = [item for item in report["generalDiagnostics"] if item["severity"] == "error"]
    # the deliberate mistakes bear mypy's comment, which pyright honours as well
    assert not errors, errors
