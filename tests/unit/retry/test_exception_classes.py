"""Every exception class of the installed SDKs and hosts means something, by itself or by a base that does."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest

from llm_cost_middleware import errors
from llm_cost_middleware.provider import FailureKind as K
from llm_cost_middleware.retry.classify import classify_error
from llm_cost_middleware.retry.exception_rules import EXCEPTION_RULES, is_neutral
from llm_cost_middleware.retry.facts import read_exception

LITELLM = (
    "litellm.exceptions",
    "litellm.types.router",
    "litellm.llms.anthropic.common_utils",
    "litellm.llms.openai.common_utils",
    "litellm.llms.base_llm.chat.transformation",
)


DEFINES_ONE = re.compile(r"^ *class \w+\([^)]*(?:Error|Exception|Cancelled|Timeout)\b", re.MULTILINE)


def load_what_defines_exceptions(package) -> None:
    """Import each module of ``package`` that defines an exception: what nobody has imported yet can be raised too."""
    folder = Path(package.__file__).parent
    for file in folder.rglob("*.py"):
        if DEFINES_ONE.search(file.read_text()):
            parts = (package.__name__, *file.relative_to(folder).with_suffix("").parts)
            try:
                importlib.import_module(".".join(parts).removesuffix(".__init__"))
            except ModuleNotFoundError as missing:
                if str(missing.name).partition(".")[0] == package.__name__:
                    raise  # else it needs a package that is not installed: what it defines cannot be raised here


def exceptions_of(root: str) -> dict[str, type[BaseException]]:
    """Every exception class that ``root`` or a module under it defines, by qualified name."""
    module = importlib.import_module(root)
    if hasattr(module, "__path__"):
        load_what_defines_exceptions(module)
    found = {}
    for name, loaded in list(sys.modules.items()):
        if name == root or name.startswith(f"{root}."):
            for thing in list(vars(loaded).values()):
                if (
                    inspect.isclass(thing)
                    and issubclass(thing, BaseException)
                    and not issubclass(thing, Warning)
                    and thing.__module__.split(".")[0] == root.split(".", maxsplit=1)[0]
                ):
                    found[f"{thing.__module__}.{thing.__qualname__}"] = thing
    return found


def unmapped(classes: dict[str, type[BaseException]]) -> list[str]:
    def mapped(name: str, cls: type[BaseException]) -> bool:
        bases = [f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__]
        return name in EXCEPTION_RULES or any(base in EXCEPTION_RULES and not is_neutral(base) for base in bases)

    return sorted(name for name, cls in classes.items() if not mapped(name, cls))


@pytest.mark.parametrize(
    ("root", "least"),
    [
        ("anthropic", 150),
        ("openai", 25),
        ("httpx", 25),
        ("httpx2", 25),
        ("httpcore", 14),
        ("httpcore2", 14),
        ("aiohttp.client_exceptions", 20),
        ("langchain", 5),
        ("langchain_core", 20),
        ("langchain_anthropic", 10),
        ("langchain_openai", 12),
        pytest.param("langchain_litellm", 2, marks=pytest.mark.litellm),
    ],
)
def test_every_exception_class_is_mapped(root, least):
    classes = exceptions_of(root)
    assert len(classes) >= least, sorted(classes)
    assert unmapped(classes) == []


@pytest.mark.litellm
@pytest.mark.parametrize("module", LITELLM)
def test_every_exception_class_of_litellm_is_mapped(module):
    classes = exceptions_of(module)
    assert classes
    assert unmapped(classes) == []


def test_every_exception_class_of_our_own_is_mapped_and_never_retried():
    classes = exceptions_of("llm_cost_middleware.errors")
    assert set(classes) >= {f"llm_cost_middleware.errors.{name}" for name in vars(errors) if name.endswith("Error")}
    assert unmapped(classes) == []
    for cls in classes.values():
        failure = classify_error(cls.__new__(cls))
        assert not failure.retryable, cls
        assert failure.billed in {"no", "yes"}, cls


def test_an_unmapped_class_would_be_noticed():
    class NewError(Exception):
        pass

    class NewStatusError(importlib.import_module("anthropic").APIStatusError):
        pass

    assert unmapped({"a.NewError": NewError, "a.NewStatusError": NewStatusError}) == ["a.NewError", "a.NewStatusError"]


def test_the_exceptions_of_the_interpreter_and_the_event_loop_are_mapped():
    classes = (
        asyncio.CancelledError, asyncio.TimeoutError, asyncio.IncompleteReadError, KeyboardInterrupt, SystemExit,
        GeneratorExit, TimeoutError, ConnectionError, ConnectionResetError, ConnectionRefusedError,
        ConnectionAbortedError, BrokenPipeError,
    )  # fmt: skip
    assert unmapped({f"{cls.__module__}.{cls.__qualname__}": cls for cls in classes}) == []


def test_a_class_that_stands_for_a_status_agrees_with_the_status():
    """The SDKs' own table of (status, code) to class, each made as the SDK makes it: the status decides, or a code."""
    import httpx2
    from anthropic._error_classes import ERROR_CLASSES, make_status_error

    about_money = {}
    for status, code in ERROR_CLASSES:
        body = {"error": {"type": None, "message": "m", **({"details": {"error_code": code}} if code else {})}}
        response = httpx2.Response(status, json=body, request=httpx2.Request("POST", "http://x"))
        error = make_status_error("m", body=body, response=response)
        failure = classify_error(error)
        assert read_exception(error).status == status
        assert failure.retryable == (status in {408, 409, 429} or (status >= 500 and status != 501)) or code, error
        if code and ("spend_limit" in code or "billing" in code):
            about_money[code] = failure.kind
    assert about_money == {
        "enforced_spend_limit_reached": K.SPEND_LIMIT,
        "contract_spend_limit_reached": K.SPEND_LIMIT,
        "linked_organization_spend_limit_reached": K.SPEND_LIMIT,
        "linked_organization_billing_unavailable": K.QUOTA_EXHAUSTED,
        "spend_limits_admin_api_writes_not_enabled": K.PERMISSION,
        "user_profile_billing_not_authorized": K.PERMISSION,
    }
