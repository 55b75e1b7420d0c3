"""Named tuples that are made without their constructor have all of their fields."""

import ast
import importlib
from pathlib import Path

import llm_cost_middleware

ROOT = Path(llm_cost_middleware.__file__).parent


def _made():
    """Module, line, class and number of values of each."""
    for path in sorted(ROOT.rglob("*.py")):
        text = path.read_text()
        if "named_tuples import made" not in text:
            continue
        module = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "made":
                kind, values = node.args
                yield module, node.lineno, kind.id, values


def test_every_one_has_as_many_values_as_its_class_has_fields():
    found = 0
    for module, line, name, values in _made():
        kind = getattr(importlib.import_module(module), name)
        assert isinstance(values, ast.Tuple), f"{module}:{line}: write the values out"
        count = sum(1 for value in values.elts if not isinstance(value, ast.Starred))
        assert count == len(values.elts), f"{module}:{line}: write the values out"
        assert count == len(kind._fields), f"{module}:{line}: {name} has {kind._fields}"
        found += 1
    assert found > 5
