"""Whom events go to: objects and plain functions, and what becomes of those that fail."""

import functools
import logging

import pytest

from llm_cost_middleware import ConfigurationError, CostConfig, CostPipeline, CostTracker, process


class Method:
    def __init__(self):
        self.seen = []

    def on_event(self, event):
        self.seen.append(event)


class Callable(Method):
    def __call__(self, event):
        self.seen.append(event)


def _function(seen, event):
    seen.append(event)


def test_a_function_an_object_and_a_callable_all_receive_every_event(clients):
    plain, partial, method, both = [], [], Method(), Callable()
    observers = [plain.append, functools.partial(_function, partial), method, both]
    with CostPipeline(CostConfig(), observers=observers) as pipeline:
        process("hello", pipeline, CostTracker(), client=clients["openai"])
    assert [type(event).__name__ for event in plain] == ["Routed", "Reserved", "Settled"]
    assert plain == partial == method.seen == both.seen


def test_one_observer_needs_no_list(clients):
    seen = []
    with CostPipeline(CostConfig(), observers=seen.append) as pipeline:
        process("hello", pipeline, CostTracker(), client=clients["openai"])
    assert len(seen) == 3


async def _asynchronous(event):
    raise AssertionError(event)


class _AsynchronousMethod:
    async def on_event(self, event):
        raise AssertionError(event)


@pytest.mark.parametrize(
    ("observer", "said"),
    [
        (Method, "class: pass an instance"), (7, "not 7"), (None, "not None"), ("log", "not 'l'"),
        (_asynchronous, "asynchronous"), (_AsynchronousMethod(), "asynchronous"),
    ],
)  # fmt: skip
def test_what_can_receive_nothing_is_refused_with_the_right_form(observer, said):
    with pytest.raises(ConfigurationError, match=said) as caught:
        CostPipeline(CostConfig(), observers=observer if observer == "log" else [observer])
    assert "on_event(event)" in str(caught.value)


def test_an_observer_that_raises_is_named_once_and_the_others_still_receive(clients, caplog):
    def broken(event):
        raise RuntimeError(event.call_id)

    seen = []
    with CostPipeline(CostConfig(), observers=[broken, seen.append]) as pipeline:
        for _ in range(3):
            process("hello", pipeline, CostTracker(), client=clients["openai"])
    told = [record for record in caplog.records if "broken" in record.getMessage()]
    assert [record.levelno for record in told if record.levelno > logging.DEBUG] == [logging.ERROR]
    assert len(seen) == 9
