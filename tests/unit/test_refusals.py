"""Our errors as a host's own kind: one class a door, which survive pickling, copying and other processes."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from importlib import import_module

import pytest

from llm_cost_middleware import errors
from llm_cost_middleware.retry.classify import classify_error

HOME = "llm_cost_middleware.integrations.{}.errors"
DOORS = {
    "openai": ("openai", "OpenAIError", "APIError"),
    "anthropic": ("anthropic", "AnthropicError", "APIError"),
    "langchain": ("langchain_core.exceptions", "ModelError", "ModelRateLimitError"),
}
"""Where a host's own classes are, the one that an error of ours is, and the root of those that are retried."""

MADE = {
    errors.ConfigurationError: ("not so", {"key": "a.b"}),
    errors.UnknownKeyError: ("a.c", {"known": ("a.b",)}),
    errors.InvalidAmountError: ("limit", {"value": "x", "reason": "no"}),
    errors.InvalidScopeError: ("Global", {"reason": "no"}),
    errors.UnreadableUsageError: ("openai", {"reason": "no"}),
    errors.UnsupportedRequestError: ("POST /x", {"advice": "do not"}),
    errors.PriceNotFoundError: ("openai", {"model": "gpt-9", "known": ("gpt-5",)}),
    errors.NoModelFoundError: ("nothing", {}),
    errors.NoEligibleModelError: ({"gpt-5": "no key"}, {}),
    errors.BudgetExceededError: (
        Decimal(1),
        {"budget_limit": Decimal(2), "scope": "user:1", "resets_at": datetime(2026, 1, 1, tzinfo=UTC)},
    ),
    errors.AttributionError: ("team", {"name": "serach", "nearest": ("search",)}),
    errors.ScopePausedError: ("team:a", {"reason": "incident 7", "until": datetime(2026, 1, 1, tzinfo=UTC)}),
    errors.CircuitOpenError: ("openai/gpt-5", {"retry_after": 2.0}),
    errors.MissingExtraError: ("it", {"extra": "openai"}),
    errors.LedgerError: ("broken", {}),
    errors.LedgerUnavailableError: ("redis://x", {"reason": "down"}),
    errors.LedgerVersionError: ("redis://x", {"found": 9, "supported": 1}),
    errors.ReservationNotFoundError: ("r1", {}),
    errors.ReservationConflictError: ("r1", {"reason": "other facts"}),
}
ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.LLMCostError)]


def made(kind):
    first, rest = MADE[kind]
    return kind(first, **rest)


def test_every_error_has_an_example():
    assert {*MADE, errors.LLMCostError} == set(ALL)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", MADE, ids=lambda kind: kind.__name__)
def test_an_error_of_ours_is_the_hosts_too_with_the_same_facts(door, kind):
    """The text, the fields, the cause and the way out; through ``pickle``, ``copy`` and ``deepcopy``."""
    package, base, retried = DOORS[door]
    module, host = import_module(HOME.format(door)), import_module(package)
    plain, cause = made(kind), ValueError("first")
    plain.__cause__ = cause
    plain.add_note("a note")
    error = module.ERRORS.translated(plain)
    assert isinstance(error, kind)
    may_be_asked_again = door == "langchain" and issubclass(kind, errors.LedgerError)
    assert isinstance(error, getattr(host, base)) is not may_be_asked_again
    assert not getattr(error, "is_retryable", False)
    assert not isinstance(error, getattr(host, retried)), "what retries those would retry it"
    assert module.ERRORS.translated(error) is error
    assert type(error) is getattr(module, kind.__name__), "one class a door, which an except clause can name"
    assert (error.__cause__, error.__notes__) == (cause, ["a note"])
    for twin in (error, pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301 - ours
        assert type(twin) is type(error)
        assert (str(twin), vars(twin)) == (str(plain), vars(plain))
    assert pickle.loads(pickle.dumps(type(error))) is type(error)  # noqa: S301 - ours
    assert classify_error(error).retryable is False


@pytest.mark.parametrize("door", DOORS)
def test_an_error_reaches_another_process(door, tmp_path):
    package, base, _ = DOORS[door]
    error = import_module(HOME.format(door)).ERRORS.translated(made(errors.BudgetExceededError))
    (tmp_path / "error").write_bytes(pickle.dumps(error))
    code = (
        "import pickle, sys; error = pickle.loads(open(sys.argv[1], 'rb').read());"
        f"import {package} as host; assert isinstance(error, host.{base}); print(error.scope, error)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "error"], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == f"user:1 {error}"


def test_an_error_of_a_host_that_is_not_installed_is_read_as_the_plain_kind(tmp_path):
    error = import_module(HOME.format("openai")).ERRORS.translated(made(errors.BudgetExceededError))
    (tmp_path / "error").write_bytes(pickle.dumps(error))
    code = (
        "import pickle, sys; sys.modules['openai'] = None;"
        "error = pickle.loads(open(sys.argv[1], 'rb').read()); print(type(error).__module__, error.scope)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "error"], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["llm_cost_middleware.errors", "user:1"]


def test_an_error_passes_from_door_to_door():
    """A wrapped client inside a tool of another host: its error becomes that host's, and stays one kind."""
    first = import_module(HOME.format("openai")).ERRORS.translated(made(errors.BudgetExceededError))
    second = import_module(HOME.format("anthropic")).ERRORS.translated(first)
    assert type(second).__module__ == HOME.format("anthropic")
    assert (str(second), second.scope) == (str(first), "user:1")


@pytest.mark.parametrize("kind", [errors.BudgetExceededError, errors.CircuitOpenError], ids=lambda kind: kind.__name__)
def test_a_refusal_is_a_runtime_error(kind):
    """LangGraph's default and others like it retry no ``RuntimeError``."""
    assert issubclass(kind, RuntimeError)


def test_no_attribute_is_made_up():
    module = import_module(HOME.format("openai"))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        module.nonsense  # noqa: B018 - the access is the test
