"""One life, two drivers: whatever happens, both run the same commands with the same arguments, and tell the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import anthropic
import httpx
import openai
import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.budget.ledger import AsyncLedger
from llm_cost_middleware.context import read_context
from llm_cost_middleware.lifecycle import Runtime, adrive, drive
from llm_cost_middleware.lifecycle.commands import HandOffStream, RunInThread, Send, WriteLog
from llm_cost_middleware.pricing.tokenizer import warm_up
from llm_cost_middleware.request import CallRequest, CallResult, Message, Part
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

BOTH = frozenset({"anthropic", "openai"})


def _said(tokens=50, *, model=None, complete=True, finish="stop"):
    usage = TokenUsage(uncached_input=120, output=tokens)
    return UsageReport(
        items=(BilledItem(usage),), model=model, complete=complete, finish_reason=finish, response_id="r1"
    )


def _error(provider, status, headers=None, body=None):
    module = {"anthropic": anthropic, "openai": openai}[provider]
    response = httpx.Response(status, headers=headers, json=body or {}, request=httpx.Request("POST", "http://x"))
    return module.APIStatusError(f"Error code: {status}", response=response, body=body)


def _lost(provider):
    module = {"anthropic": anthropic, "openai": openai}[provider]
    return module.APIConnectionError(request=httpx.Request("POST", "http://x"))


class Stream:
    """A host's stream that yields chunks and then ends, or breaks."""

    def __init__(self, chunks, error=None, reading=None):
        self._chunks, self._error, self._reading = chunks, error, reading or _said()

    def __iter__(self):
        yield from self._chunks
        if self._error is not None:
            raise self._error

    async def __aiter__(self):
        for chunk in self._chunks:
            yield chunk
        if self._error is not None:
            raise self._error

    def reading(self):
        return self._reading

    def close(self):
        pass

    async def aclose(self):
        pass


def _whole():
    return Stream("abc")


def _half():
    return Stream("ab", _lost("openai"), _said(complete=False))


def _dead():
    return Stream("", _lost("openai"), UsageReport())


class Scenario(NamedTuple):
    """What the host's sends answer, attempt by attempt, under which configuration."""

    answers: tuple[Callable[[str], Any], ...]
    """Each is called with the provider asked: returns an answer or an exception to raise."""
    commands: tuple[str, ...]
    events: tuple[str, ...]
    config: dict[str, Any] = {}  # noqa: RUF012 - never changed
    said: dict[str, Any] = {}  # noqa: RUF012 - never changed
    leave: int | None = None
    """After how many chunks the caller walks away."""
    text: str = "hello"
    max_tokens: int | None = None
    model: str = "smart"
    raises: type[BaseException] | None = None


def ok(_):
    return CallResult("an answer", _said())


def silent(_):
    return CallResult("an answer", UsageReport())


def fails(status, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda provider: _error(provider, status, headers)


def raising(error):
    return lambda _: error


HOLD = ("Reserve", "Send")
BOOK = ("Settle", "WriteLog")
TIGHT = {"budgets": [{"scope": "global", "limit": "0.01"}]}
OBSERVE = {"mode": "observe"}
SETTLED = ("Routed", "Reserved", "Settled")

SCENARIOS = {
    "answered": Scenario((ok,), (*HOLD, *BOOK), SETTLED),
    "no usage": Scenario((silent,), (*HOLD, *BOOK), SETTLED),
    "retried": Scenario(
        (fails(529), ok), (*HOLD, "Void", "Sleep", *HOLD, *BOOK),
        ("Routed", "Reserved", "Voided", "Retried", "Reserved", "Settled"),
    ),
    "waits as asked": Scenario(
        (fails(429, retry_after="7"), ok), (*HOLD, "Void", "Sleep", *HOLD, *BOOK),
        ("Routed", "Reserved", "Voided", "Retried", "Reserved", "Settled"),
    ),
    "asked to wait too long": Scenario(
        (fails(429, retry_after="600"), ok), (*HOLD, "Void", *HOLD, *BOOK),
        ("Routed", "Reserved", "Voided", "Retried", "Reserved", "Settled"),
    ),
    "lost and found": Scenario(
        (_lost, ok), (*HOLD, "Settle", "Sleep", *HOLD, *BOOK),
        ("Routed", "Reserved", "Settled", "Retried", "Reserved", "Settled"),
    ),
    "ends abroad": Scenario(
        (fails(500), fails(500), ok), (*HOLD, "Void", "Sleep", *HOLD, "Void", *HOLD, *BOOK),
        ("Routed", "Reserved", "Voided", "Retried", "Reserved", "Voided", "Retried", "Reserved", "Settled"),
    ),
    "faulty": Scenario(
        (fails(400),), (*HOLD, "Void", "WriteLog"), ("Routed", "Reserved", "Voided", "CallFailed"),
        raises=openai.APIStatusError,
    ),
    "given up": Scenario(
        (fails(500),) * 3, (*HOLD, "Void", "Sleep", *HOLD, "Void", *HOLD, "Void", "WriteLog"),
        (
            "Routed", "Reserved", "Voided", "Retried", "Reserved", "Voided", "Retried", "Reserved", "Voided",
            "CallFailed",
        ),
        raises=anthropic.APIStatusError,
    ),
    "cancelled": Scenario(
        (raising(asyncio.CancelledError()),), (*HOLD, "Settle", "WriteLog"), (*SETTLED, "CallFailed"),
        raises=asyncio.CancelledError,
    ),
    "a stream": Scenario((lambda _: _whole(),), (*HOLD, "HandOffStream", *BOOK), SETTLED),
    "a stream that is closed": Scenario((lambda _: _whole(),), (*HOLD, "HandOffStream", *BOOK), SETTLED, leave=2),
    "a stream that breaks": Scenario(
        (lambda _: _half(),), (*HOLD, "HandOffStream", *BOOK), (*SETTLED, "CallFailed"),
        raises=openai.APIConnectionError,
    ),
    "a stream that never begins": Scenario(
        (lambda _: _dead(), lambda _: _whole()), (*HOLD, "Settle", "Sleep", *HOLD, "HandOffStream", *BOOK),
        ("Routed", "Reserved", "Settled", "Retried", "Reserved", "Settled"),
    ),
    "counted at once": Scenario(
        (ok,), (*HOLD, *BOOK), SETTLED, {"budgets": [{"scope": "global", "limit": "0.003"}]},
        text="words that are plain " * 200, max_tokens=1_000, model="gpt-5-mini",
    ),
    "long and counted first": Scenario(
        (ok,), ("Available", "RunInThread", *HOLD, *BOOK), SETTLED,
        {"budgets": [{"scope": "global", "limit": "0.008"}]},
        text="words that are plain " * 2_000, max_tokens=1_000, model="gpt-5-mini",
    ),
    "long beside ample money": Scenario(
        (ok,), ("Available", *HOLD, *BOOK), SETTLED, text="words that are plain " * 2_000, max_tokens=1_000,
        model="gpt-5-mini",
    ),
    "downgraded": Scenario(
        (ok,), ("Reserve", *HOLD, *BOOK), ("Routed", "Reserved", "RequestAdjusted", "Settled"),
        {**TIGHT, "routing": {"text_threshold": 1}}, max_tokens=1_500,
    ),
    "capped": Scenario(
        (ok,), ("Reserve", "Available", *HOLD, *BOOK), ("Routed", "Reserved", "RequestAdjusted", "Settled"),
        {**TIGHT, "output": {"on_insufficient": ["cap_output", "raise"], "default_max_tokens": 50_000}},
    ),
    "refused": Scenario(
        (), ("Reserve", "WriteLog"), ("Routed", "BudgetRefused"),
        {"budgets": [{"scope": "global", "limit": "0.000001"}], "output": {"on_insufficient": ["raise"]}},
        raises=Exception,
    ),
    "refused for its own limit": Scenario(
        (), ("WriteLog",), ("Routed", "BudgetRefused"), {"output": {"on_insufficient": ["raise"]}},
        said={"max_cost": "0.000001"}, raises=Exception,
    ),
    "observed": Scenario((ok,), (*HOLD, *BOOK), SETTLED, OBSERVE, model="gpt-5-mini"),
    "observed beyond the budget": Scenario(
        (ok,), ("Reserve", "Available", "Send", "PostUnreserved", "ReadBalances", "WriteLog"),
        ("Routed", "BudgetRefused", "Settled", "ThresholdCrossed"),
        {**OBSERVE, "budgets": [{"scope": "global", "limit": "0.000001"}]}, model="gpt-5-mini",
    ),
    "routed by what is left": Scenario(
        (ok,), ("ReadHeadroom", *HOLD, *BOOK), SETTLED,
        {**TIGHT, "routing": {"explore": 0.1}}, max_tokens=100,
    ),
}  # fmt: skip


def _recorded(steps, transcript):
    """A life whose commands are written down on their way to the driver."""
    command = next(steps)
    while True:
        transcript.append(_described(command))
        try:
            value = yield command
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - as a driver throws it
            transcript.append(f"! {error!r}")
            throw = error
        else:
            throw = None
            transcript.append(f"= {_value(value)}")
        try:
            command = steps.throw(throw) if throw is not None else steps.send(value)
        except StopIteration as stop:
            return stop.value


def _described(command):
    if isinstance(command, WriteLog | RunInThread):
        return type(command).__name__
    if isinstance(command, HandOffStream):
        return f"HandOffStream({command.reservation_id!r}, {command.hold_ttl_s})"
    if isinstance(command, Send):
        attempt = command.attempt
        return f"Send({attempt.number}, {attempt.target}, {attempt.max_tokens}, {attempt.timeout_s})"
    return repr(command)


def _value(value):
    return value if value is None or isinstance(value, int | str) else type(value).__name__


class Told:
    def __init__(self, transcript):
        self.transcript = transcript

    def on_event(self, event):
        self.transcript.append(f"> {event!r}")


def _play(scenario, url, *, asynchronous):
    """The transcript of a scenario: commands, their results, events, what the caller got."""
    transcript, clock, answers = [], FakeClock(), iter(scenario.answers)
    ids = iter(range(100))
    config = CostConfig(**{"budgets": [{"scope": "global", "limit": "100"}], **scenario.config, "ledger": {"url": url}})
    pipeline = CostPipeline(
        config, clock=clock, rng=Random(3), observers=[Told(transcript)], new_id=lambda: f"c{next(ids)}"
    )
    request = CallRequest(
        "openai", scenario.model, (Message("user", (Part("text", scenario.text),)),), endpoint="chat.completions",
        max_tokens=scenario.max_tokens, context=read_context(scenario.said), model_pinned=scenario.model != "smart",
    )  # fmt: skip

    def send(attempt):
        answer = next(answers)(attempt.target.provider)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def asend(attempt):
        return send(attempt)

    steps = _recorded(pipeline._flow.start(request, providers=BOTH), transcript)

    def run():
        answer = drive(steps, Runtime(pipeline.ledger, clock), send)
        if hasattr(answer, "response"):
            return [answer.response]
        if scenario.leave is None:
            return [*answer]
        chunks = [next(answer) for _ in range(scenario.leave)]
        answer.close()
        return chunks

    async def arun():
        ledger = AsyncLedger.open(url, clock=clock) if url.startswith("sqlite") else None
        try:
            answer = await adrive(steps, Runtime(pipeline.ledger, clock, ledger), asend)
            if hasattr(answer, "response"):
                return [answer.response]
            if scenario.leave is None:
                return [chunk async for chunk in answer]
            chunks = [await anext(answer) for _ in range(scenario.leave)]
            await answer.aclose()
            return chunks
        finally:
            if ledger is not None:
                await ledger.aclose()

    try:
        transcript.append(f"returned {asyncio.run(arun()) if asynchronous else run()}")
    except BaseException as error:
        if scenario.raises is None or not isinstance(error, scenario.raises):
            raise
        transcript.append(f"raised {error!r}")
    balance = pipeline.ledger.balance("global")
    assert balance.pending_nanousd == 0
    pipeline.close()
    return transcript


@pytest.fixture(autouse=True, scope="module")
def loaded():
    """A vocabulary that is loaded by the first call would make it differ from the second."""
    assert warm_up("o200k_base")


@pytest.mark.parametrize("ledger", ["memory", "sqlite"])
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_both_drivers_write_the_same_transcript(scenario, ledger, tmp_path):
    urls = [f"sqlite:///{tmp_path}/{name}.db" if ledger == "sqlite" else "memory://" for name in ("a", "b")]
    transcript = _play(scenario, urls[0], asynchronous=False)
    assert _play(scenario, urls[1], asynchronous=True) == transcript
    ran = [line.partition("(")[0] for line in transcript if (line[0].isupper() and "(" in line) or line in COMMANDS]
    commands = scenario.commands
    booked = [command for command in commands[:-1] if command != "ReadBalances"][-1:]
    if ledger == "memory" or booked in (["Settle"], ["PostUnreserved"]):
        commands = commands[:-1]  # what there is to log waits for nothing, or was written with the money
    assert tuple(ran) == commands
    told = [line[2:].partition("(")[0] for line in transcript if line.startswith("> ")]
    assert tuple(told) == scenario.events
    assert transcript[-1].startswith("raised" if scenario.raises else "returned")


COMMANDS = frozenset({"WriteLog", "RunInThread"})
