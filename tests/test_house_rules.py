"""Rules of the house that no linter knows."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "llm_cost_middleware"
FRONT = PACKAGE / "__init__.py"
FILES = sorted(PACKAGE.rglob("*.py"))


def _relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_file_is_longer_than_400_lines():
    long = {_relative(path): n for path in FILES if (n := len(path.read_text().splitlines())) > 400}
    assert not long


def test_there_is_no_room_for_leftovers():
    banned = {"utils", "util", "helpers", "helper", "common", "misc", "shared", "base"}
    assert not [_relative(path) for path in FILES if path.stem in banned or path.parent.name in banned]


def test_every_module_has_a_docstring():
    assert not [_relative(path) for path in FILES if not path.read_text().lstrip().startswith(('"""', 'r"""'))]


def test_the_glossary_is_short_and_its_words_are_used():
    entries = re.findall(r"^- ([a-z ]+): (.+)$", ast.get_docstring(ast.parse(FRONT.read_text())), re.MULTILINE)
    words = [word for word, _ in entries]
    assert 20 <= len(words) == len(set(words)) <= 40
    text = " ".join(path.read_text() for path in FILES if path != FRONT)
    plain = re.sub(r"[\W_]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)).lower()  # CircuitBreaker, circuit_breaker
    assert not [word for word in words if f" {word} " not in plain and f" {word}s " not in plain]


def test_every_test_that_a_docstring_names_exists():
    named = {name for path in FILES for name in re.findall(r"``(tests/[\w/.]+)``", path.read_text())}
    assert len(named) >= 8
    assert not [name for name in named if not (ROOT / name.replace("NAME", "openai")).exists()]


def test_money_is_never_a_float():
    """Names of money are annotated with exact types only."""
    pattern = re.compile(r"\b\w*(?:_nanousd|_picousd|_usd|cost|price|amount)\s*:\s*float\b")
    assert not [_relative(path) for path in FILES if pattern.search(path.read_text())]


def test_every_suppression_gives_its_reason():
    """Beside it; or, where a file repeats one, at the first."""
    said = re.compile(r"#\s*(noqa:\s*[A-Z0-9, ]+|type:\s*ignore\[[^\]]*\]|pragma: no cover)(.*)$")
    blanket = re.compile(r"#\s*(?:noqa|type:\s*ignore)\s*$")
    found = []
    for path in FILES:
        reasons: set[str] = set()
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = said.search(line)
            if blanket.search(line) or (match and not match[2].strip(" -#") and match[1].strip() not in reasons):
                found.append(f"{_relative(path)}:{number}")
            elif match:
                reasons.add(match[1].strip())
    assert not found


def test_no_machine_path_stands_in_the_tree():
    text = re.compile(r"(?<![\w.])/(?:work|root|home/\w+|tmp/bash_jobs)/")
    files = [
        *FILES,
        *(ROOT / "tests").rglob("*.py"),
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "pyproject.toml",
    ]
    me = Path(__file__).resolve()
    assert not [_relative(path) for path in files if path != me and path.is_file() and text.search(path.read_text())]


def test_the_import_contracts_hold():
    pytest.importorskip("importlinter", reason="needs the test extra: import-linter")
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("the contracts stand in the source tree, which is not here")
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--verbose"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
