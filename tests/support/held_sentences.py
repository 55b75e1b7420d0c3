"""What a sentence that is not yet formatted is made of."""

import ast
from pathlib import Path

import llm_cost_middleware
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.rules import Rule

ROOT = Path(llm_cost_middleware.__file__).parent


def parts(told):
    """The functions of a sentence, and what they take."""
    if type(told) is tuple:
        for value in told:
            yield from parts(value)
    else:
        yield told


def templates(told):
    """The templates of a sentence."""
    return [part.__self__ for part in parts(told) if callable(part) and part.__name__ == "format"]


def holds_little(told):
    """Assert that a sentence keeps nothing large alive, and nothing that changes."""
    for part in parts(told):
        if callable(part):  # a method of a template, or a function that holds nothing itself
            assert isinstance(getattr(part, "__self__", ""), str), part
            assert not getattr(part, "__closure__", None), part
        else:
            assert part is None or isinstance(part, str | int | float | ModelRef | Rule), part


def written_templates(*folders):
    """The templates that sentences are made with, in the source of folders: ``"…".format`` that is not called there."""
    found = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr == "format" and id(node) not in called:
                assert isinstance(node.value, ast.Constant), ast.unparse(node)
                found.add(node.value.value)
    return found
