"""Figures about the source tree itself: sizes, names, comments, typing, ownership.

Run it on this tree, or on another checkout to compare::

    python tests/house_figures.py [ROOT ...]

Every figure is a count over the syntax trees and tokens of ``llm_cost_middleware/``; nothing is imported.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = "llm_cost_middleware"
CORE = frozenset(
    {"budget", "lifecycle", "metering", "platforms", "pricing", "prompt_cache", "providers", "retry", "routing"}
)
"""Rooms where ``Any`` has no host object to excuse it. The single files of the vocabulary belong to them."""
PROVIDER_NAMES = frozenset({"anthropic", "openai"})
_NO_REASON = re.compile(r"#\s*(noqa|type:|fmt:|pragma|ruff:|---|pyright:|!|mypy:)")
"""Comments that address a tool, or draw a line."""


class Module(NamedTuple):
    """One source file, read once."""

    path: Path
    room: str
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        """Lines of the file, blank ones included."""
        return len(self.text.splitlines())


class Figures(NamedTuple):
    """What is counted; see ``DESCRIPTIONS``."""

    lines: int
    files: int
    lines_without_simulator: int
    files_without_simulator: int
    median_file: int
    largest_file: int
    functions: int
    function_p99: int
    function_max: int
    any_per_100_core: float
    any_per_100: float
    why_comments_per_100: float
    ambiguous_names: int
    most_collaborators: int
    most_mutable_fields: int
    provider_literal_files: int


DESCRIPTIONS = {
    "lines": "lines of the package",
    "files": "files of the package",
    "lines_without_simulator": "lines, simulator aside",
    "files_without_simulator": "files, simulator aside",
    "median_file": "lines of the median file",
    "largest_file": "lines of the largest file",
    "functions": "functions and methods",
    "function_p99": "lines of a function's body, 99th percentile",
    "function_max": "lines of a function's body, largest",
    "any_per_100_core": "`Any` per 100 lines, core rooms",
    "any_per_100": "`Any` per 100 lines, whole package",
    "why_comments_per_100": "comments per 100 lines, those for tools aside, simulator aside",
    "ambiguous_names": "class or type names that two modules define, simulator aside",
    "most_collaborators": "objects that the class with most collaborators keeps, values aside",
    "most_mutable_fields": "fields of the largest mutable dataclass in lifecycle/",
    "provider_literal_files": "files outside providers/ that compare with a provider's name, simulator aside",
}


def read(root: Path) -> list[Module]:
    """Every module of the package below ``root``."""
    package = root / PACKAGE
    modules = []
    for path in sorted(package.rglob("*.py")):
        inner = path.relative_to(package)
        text = path.read_text(encoding="utf-8")
        modules.append(Module(path, inner.parts[0] if len(inner.parts) > 1 else "", text, ast.parse(text)))
    return modules


def ambiguous_names(modules: list[Module]) -> dict[str, list[str]]:
    """Names of classes and type aliases that more than one module defines, underscores aside."""
    places: dict[str, set[str]] = defaultdict(set)
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].add(str(module.path))
        for node in module.tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and (name := _alias(node)):
                places[name.lstrip("_")].add(str(module.path))
    return {name: sorted(paths) for name, paths in sorted(places.items()) if len(paths) > 1}


def _alias(node: ast.Assign | ast.AnnAssign) -> str | None:
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    if not isinstance(target, ast.Name) or not re.match(r"_?[A-Z][a-z]", target.id) or node.value is None:
        return None
    return target.id


def collaborators(modules: list[Module]) -> list[tuple[int, str]]:
    """For each class, how many objects its ``__init__`` keeps, values and containers aside."""
    found = (
        (len(_collaborators(node)), f"{module.path.stem}.{node.name}")
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    )
    return sorted(found, reverse=True)


def _collaborators(node: ast.ClassDef) -> set[str]:
    kept: set[str] = set()
    for function in node.body:
        if isinstance(function, ast.FunctionDef) and function.name == "__init__":
            arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            given = {argument.arg: ast.unparse(argument.annotation) for argument in arguments if argument.annotation}
            for statement in ast.walk(function):
                if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
                    kept.update(name for name, value in _kept(statement) if _is_object(value, given))
    return kept


def _kept(statement: ast.Assign | ast.AnnAssign) -> Iterator[tuple[str, ast.expr]]:
    """The attributes of ``self`` that a statement sets, each with its value."""
    for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
        value = statement.value
        assert value is not None
        several = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
        pairs = zip(target.elts, value.elts, strict=True) if several else [(target, value)]  # type: ignore[attr-defined]
        for place, kept in pairs:
            if isinstance(place, ast.Attribute) and isinstance(place.value, ast.Name) and place.value.id == "self":
                yield place.attr, kept


_VALUES = re.compile(
    r"(Policy|Config|Settings)\b|^(str|int|float|bool|bytes|Decimal|Any|None|Mapping|Sequence|dict|list)\b"
)
"""Annotations of plain values: frozen settings, numbers, texts, containers."""
_CONTAINERS = frozenset(
    {"dict", "list", "set", "deque", "OrderedDict", "defaultdict", "frozenset", "tuple", "int", "str", "float", "bool",
     "Lock", "RLock", "Condition", "ContextVar", "WeakKeyDictionary", "WeakSet", "count"}
)  # fmt: skip


def _is_object(value: ast.expr, given: dict[str, str]) -> bool:
    if isinstance(value, ast.Name):
        return value.id in given and not _VALUES.search(given[value.id])
    if isinstance(value, ast.Call):
        name = value.func.id if isinstance(value.func, ast.Name) else getattr(value.func, "attr", "")
        return name not in _CONTAINERS and not name.endswith(("Policy", "Config", "Settings"))
    return False


def mutable_fields(modules: list[Module]) -> list[tuple[int, str]]:
    """Fields of each dataclass in ``lifecycle/`` that is not frozen."""
    found = []
    for module in modules:
        if module.room != "lifecycle":
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef) and _is_mutable_dataclass(node):
                fields = sum(isinstance(item, ast.AnnAssign) for item in node.body)
                found.append((fields, f"{module.path.stem}.{node.name}"))
    return sorted(found, reverse=True)


def _is_mutable_dataclass(node: ast.ClassDef) -> bool:
    for decorator in node.decorator_list:
        text = ast.unparse(decorator)
        if text.startswith("dataclass"):
            return "frozen=True" not in text
    return False


def provider_literals(modules: list[Module]) -> list[str]:
    """Files outside ``providers/`` and the simulator with ``"anthropic"`` or ``"openai"`` as a value of their own."""
    return [
        str(module.path)
        for module in modules
        if module.room not in {"providers", "simulator"}
        and any(isinstance(node, ast.Constant) and node.value in PROVIDER_NAMES for node in ast.walk(module.tree))
    ]


def _comments(text: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not _NO_REASON.match(token.string):
            yield token.string


def _uses_of_any(tree: ast.Module) -> int:
    return sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(tree))


def _per_100(count: int, modules: list[Module]) -> float:
    return round(100 * count / max(sum(module.lines for module in modules), 1), 2)


def _body_lines(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            yield (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def measure(root: Path) -> Figures:
    """All figures of the tree below ``root``."""
    modules = read(root)
    own = [module for module in modules if module.room != "simulator"]
    core = [module for module in own if module.room in CORE or not module.room]
    sizes = sorted(module.lines for module in modules)
    bodies = sorted(size for module in modules for size in _body_lines(module.tree))
    return Figures(
        lines=sum(sizes),
        files=len(sizes),
        lines_without_simulator=sum(module.lines for module in own),
        files_without_simulator=len(own),
        median_file=sizes[len(sizes) // 2],
        largest_file=sizes[-1],
        functions=len(bodies),
        function_p99=bodies[len(bodies) * 99 // 100],
        function_max=bodies[-1],
        any_per_100_core=_per_100(sum(_uses_of_any(module.tree) for module in core), core),
        any_per_100=_per_100(sum(_uses_of_any(module.tree) for module in own), own),
        why_comments_per_100=_per_100(sum(1 for module in own for _ in _comments(module.text)), own),
        ambiguous_names=len(ambiguous_names(own)),
        most_collaborators=collaborators(own)[0][0],
        most_mutable_fields=max(mutable_fields(own), default=(0, ""))[0],
        provider_literal_files=len(provider_literals(own)),
    )


def main(roots: list[str]) -> None:
    """Print the figures of each tree side by side."""
    places = [Path(root) for root in roots] or [Path(__file__).resolve().parent.parent]
    columns = [measure(place) for place in places]
    width = max(map(len, DESCRIPTIONS.values()))
    for name, description in DESCRIPTIONS.items():
        print(f"{description:<{width}}", *(f"{getattr(column, name):>10}" for column in columns))
    modules = [module for module in read(places[-1]) if module.room != "simulator"]
    print("\nnames with two meanings:", ", ".join(ambiguous_names(modules)) or "none")
    print("most collaborators:", ", ".join(f"{name} {count}" for count, name in collaborators(modules)[:5]))
    print("mutable fields:", ", ".join(f"{name} {count}" for count, name in mutable_fields(modules)[:5]))
    print("comments per 100 lines:", ", ".join(f"{room} {rate}" for room, rate in _rooms(modules).items()))


def _rooms(modules: list[Module]) -> dict[str, float]:
    rooms = defaultdict(list)
    for module in modules:
        rooms[module.room or "(top)"].append(module)
    return {
        room: _per_100(sum(1 for module in found for _ in _comments(module.text)), found)
        for room, found in sorted(rooms.items())
    }


if __name__ == "__main__":
    main(sys.argv[1:])
