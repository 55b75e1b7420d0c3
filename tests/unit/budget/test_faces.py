"""The blocking and the asynchronous façade take the same arguments."""

from inspect import get_annotations, signature
from pathlib import Path
from pkgutil import iter_modules

import pytest

from llm_cost_middleware.budget import backends
from llm_cost_middleware.budget.backend import AsyncBackend, Backend
from llm_cost_middleware.budget.ledger import AsyncHold, AsyncLedger, Hold, Ledger, schemes

BLOCKING_ONLY = {"archive", "back_up", "backend", "blocks", "close", "erase", "__enter__", "__exit__", "options"} | {
    "reserve_for_call",
    "settle_for_call",  # what they spare is little beside what an asynchronous call costs
}
ASYNC_ONLY = {"over", "aclose", "__aenter__", "__aexit__"}


def twins(kind):
    """Every method and property of a class that is not private, by name."""
    return {name for name in dir(kind) if not name.startswith("_")} | {"__init__"}


@pytest.mark.parametrize(("one", "other"), [(Ledger, AsyncLedger), (Hold, AsyncHold), (Backend, AsyncBackend)])
def test_both_faces_have_the_same_signatures(one, other):
    assert twins(one) - BLOCKING_ONLY == twins(other) - ASYNC_ONLY - BLOCKING_ONLY
    for name in twins(one) - BLOCKING_ONLY:
        first, second = getattr(one, name), getattr(other, name)
        if not callable(first):
            continue
        shapes = [
            (str(signature(verb).parameters).replace("Async", ""), str(get_annotations(verb).get("return")))
            for verb in (first, second)
        ]
        assert shapes[0] == (shapes[1][0], shapes[1][1].replace("Async", "")), name


def test_every_backend_has_a_scheme_and_runs_the_conformance_suite():
    """A storage that is forgotten in either place fails here."""
    names = {module.name for module in iter_modules(backends.__path__)}
    assert names <= {*schemes._BUILT_IN}
    tests = Path(__file__).parents[2] / "conformance"
    assert names == {path.stem.removeprefix("test_") for path in tests.glob("test_*.py")} - {"out_of_tree"}
