"""``batch`` of a guarded model whose inputs can wait for a day: as batches of the provider, at half price.

Each answer then passes through the model as if it had just come: callbacks, traces and messages are LangChain's own.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.runnables.config import get_config_list

from llm_cost_middleware.batches.calls import as_json
from llm_cost_middleware.batches.lane import Wishes
from llm_cost_middleware.batches.planning import BatchItem, NotForBatchesError
from llm_cost_middleware.batches.steps import arun, run
from llm_cost_middleware.errors import ConfigurationError, LLMCostError
from llm_cost_middleware.integrations.langchain.batches import refuse_what_cannot_fit, with_progress
from llm_cost_middleware.integrations.langchain.call import GuardedCall, RenderedCall
from llm_cost_middleware.integrations.langchain.errors import ERRORS
from llm_cost_middleware.integrations.langchain.runtime import ROUTE_KEY
from llm_cost_middleware.integrations.langchain.snapshots import Snapshot
from llm_cost_middleware.natural_values import read_seconds
from llm_cost_middleware.patterns.progress import progress_bar
from llm_cost_middleware.platform import PLATFORMS
from llm_cost_middleware.request import Attempt
from llm_cost_middleware.routing.batch_lane import WINDOW_S

if TYPE_CHECKING:
    from langchain_core.outputs import ChatResult

    from llm_cost_middleware.batches.lane import BatchWork
    from llm_cost_middleware.batches.results import BatchAnswers
    from llm_cost_middleware.integrations.langchain.runtime import GuardRuntime

Invoke = Callable[..., Any]
_LEFT_OUT = ("timeout", "stream", "stream_options")
"""Arguments of the sending, which is not made."""
_ELSEWHERE = ("extra_headers", "extra_query", "betas", "mcp_servers", "response_format")
"""What goes by headers, or through a method of the SDK that parses the answer."""
_SYNC, _ASYNC = ("_client", "root_client"), ("_async_client", "root_async_client")


class ReadyAnswer(str):
    """An answer that came by a batch, in the place of a route: text for traces and cache keys, as ``RouteArgument``."""

    __slots__ = ("result",)
    result: ChatResult

    @classmethod
    def of(cls, result: ChatResult) -> ReadyAnswer:
        """An answer that reads as nothing."""
        ready = cls("batch")
        ready.result = result
        return ready


def ready_answer(arguments: Mapping[str, Any]) -> ChatResult | None:
    """The answer that the arguments of a call bring along; ``None`` where it is to be asked for."""
    route = arguments.get(ROUTE_KEY)
    return route.result if isinstance(route, ReadyAnswer) else None


class Batch(NamedTuple):
    """What ``batch`` of a guarded model was called with."""

    runtime: GuardRuntime
    model: Any
    inputs: list[Any]
    config: Any
    arguments: dict[str, Any]
    return_exceptions: bool
    show: bool
    anyway: bool
    timeout: Any

    @classmethod
    def of(
        cls, runtime: GuardRuntime, model: Any, inputs: list[Any], config: Any, arguments: dict[str, Any], *,
        return_exceptions: bool,
    ) -> Batch:  # fmt: skip
        """What is ours among the arguments is taken out of them."""
        show, anyway = arguments.pop("progress", False), arguments.pop("anyway", False)
        timeout = arguments.pop("batch_timeout", None)
        return cls(runtime, model, inputs, config, arguments, return_exceptions, show, anyway, timeout)

    def run(self, invoke: Invoke, batch: Invoke) -> list[Any]:
        """Answer the inputs: as batches of the provider, where they can wait; otherwise as LangChain does."""
        if (patient := self._patient()) is not None:
            return self._ended(patient.run(invoke, partial=self.partial, show=self.show))
        if not self.partial:
            refuse_what_cannot_fit(self.runtime, self.model, self.inputs, self.config, self.arguments)
        with with_progress(self.config, len(self.inputs), show=self.show) as configs:
            answers: list[Any] = batch(
                self.inputs, configs, return_exceptions=self.return_exceptions, **self.arguments
            )  # fmt: skip
        return answers

    async def arun(self, invoke: Invoke, batch: Invoke) -> list[Any]:
        """``run`` on an event loop."""
        if (patient := self._patient()) is not None:
            return self._ended(await patient.arun(invoke, partial=self.partial, show=self.show))
        if not self.partial:  # in a thread: it reads the ledger, and as many prompts as there are
            look = partial(refuse_what_cannot_fit, self.runtime, self.model, self.inputs, self.config)
            await asyncio.to_thread(look, self.arguments)
        with with_progress(self.config, len(self.inputs), show=self.show) as configs:
            answers: list[Any] = await batch(
                self.inputs, configs, return_exceptions=self.return_exceptions, **self.arguments
            )  # fmt: skip
        return answers

    @property
    def partial(self) -> bool:
        """Whether what fits is to be answered, where not all does."""
        return self.return_exceptions or self.anyway

    def _patient(self) -> PatientBatch | None:
        configs = get_config_list(self.config, len(self.inputs)) if self.inputs else []
        return PatientBatch.of(self.runtime, self.model, self.inputs, configs, self.arguments, self.timeout)

    def _ended(self, answers: list[Any]) -> list[Any]:
        error = next((answer for answer in answers if isinstance(answer, Exception)), None)
        if self.return_exceptions or error is None:
            return answers
        vars(error)["answers"] = answers  # those that were paid for must reach the caller
        if isinstance(error, LLMCostError):
            ERRORS.raised(error)
        raise error


class PatientBatch(NamedTuple):
    """Inputs that can wait."""

    runtime: GuardRuntime
    model: Any
    inputs: Sequence[Any]
    configs: Sequence[Any]
    arguments: Mapping[str, Any]
    patience_s: float
    timeout_s: float | None

    @classmethod
    def of(
        cls, runtime: GuardRuntime, model: Any, inputs: Sequence[Any], configs: Sequence[Any],
        arguments: Mapping[str, Any], timeout: Any,
    ) -> PatientBatch | None:  # fmt: skip
        """The inputs, if all of them can wait for a day."""
        made = cls(runtime, model, inputs, configs, arguments, 0.0, None)
        waits = [made.read(place)[0].context.patience_s or 0.0 for place in range(len(inputs))]
        if not waits or min(waits) < WINDOW_S:
            return None
        timeout_s = None if timeout is None else read_seconds(timeout, "batch_timeout")
        return made._replace(patience_s=min(waits), timeout_s=timeout_s)

    def read(self, place: int) -> tuple[Any, Any, Snapshot]:
        """The neutral view of an input, the providers that understand it, and what was read."""
        messages = self.model._convert_input(self.inputs[place]).to_messages()  # noqa: SLF001 - as every entry does
        asked = Snapshot.of(messages, self.arguments)
        metadata = self.configs[place].get("metadata")
        request, providers = self.runtime.read(self.model, *asked, metadata, stream=False)
        return request, providers, asked

    def run(self, invoke: Invoke, *, partial: bool, show: bool) -> list[Any]:
        """Answer them; an exception where there is no answer."""
        with progress_bar(len(self.inputs), show=show) as tell:
            steps = self._work(_SYNC, tell, partial=partial).steps()
            answers = run(steps, self.runtime.pipeline.clock, lambda at, _: self._called(invoke, at))
        found = []
        for at in range(len(self.inputs)):
            try:
                found.append(self._delivered(invoke, answers, at))
            except Exception as error:  # noqa: BLE001 - of a callback, say: the other answers are paid for
                found.append(error)
        return found

    async def arun(self, invoke: Invoke, *, partial: bool, show: bool) -> list[Any]:
        """``run`` on an event loop."""
        with progress_bar(len(self.inputs), show=show) as tell:
            steps = self._work(_ASYNC, tell, partial=partial).steps()
            answers = await arun(steps, self.runtime.pipeline.clock, lambda at, _: self._acalled(invoke, at))
        found = []
        for at in range(len(self.inputs)):
            try:
                made = self._delivered(invoke, answers, at)
                found.append(await made if isinstance(made, Coroutine) else made)
            except Exception as error:  # noqa: BLE001 - as in ``run``
                found.append(error)
        return found

    def _work(self, clients: tuple[str, ...], tell: Callable[[int, int], object], *, partial: bool) -> BatchWork:
        wishes = Wishes(self.patience_s, self.timeout_s, partial=partial, progress=tell)
        names = [name for name in clients if getattr(self.model, name, None) is not None]
        wrapped = getattr(self.model, names[0])
        client = getattr(getattr(wrapped, "__dict__", {}).get("_llm_cost_wrapped"), "client", wrapped)
        items = [self._item(place, client) for place in range(len(self.inputs))]
        return self.runtime.pipeline.batch_work(items, wishes)

    def _item(self, place: int, client: Any) -> BatchItem:
        request, providers, asked = self.read(place)
        targets = self.runtime.targets(self.model)
        call = GuardedCall(request, providers, None, targets, *asked, stream=False, checked=False)
        sent: list[tuple[Attempt, RenderedCall]] = []

        def render(attempt: Attempt) -> Mapping[str, Any]:
            sent[:] = [(attempt, call.render(attempt))]
            return _body(sent[0][1])

        def deliver(response: Any) -> ChatResult:
            attempt, rendered = sent[0]
            read: Any = call.read(attempt, _parsed(rendered, response, request.endpoint))
            result: ChatResult = read.response
            return result

        alone = f"a model of {request.provider} makes no batch" if request.provider in PLATFORMS else ""
        return BatchItem(request, client, render, deliver, alone=alone)

    def _called(self, invoke: Invoke, place: int) -> _Called:
        return _Called(invoke(self.inputs[place], self.configs[place], **self.arguments))

    async def _acalled(self, invoke: Invoke, place: int) -> _Called:
        return _Called(await invoke(self.inputs[place], self.configs[place], **self.arguments))

    def _delivered(self, invoke: Invoke, answers: BatchAnswers, place: int) -> Any:
        """What the caller gets; on an event loop perhaps a coroutine of it."""
        outcome: Any = answers.results[place].outcome
        if outcome is None:
            return answers.results[place].error
        if isinstance(outcome, _Called):
            return outcome.response
        ready = {ROUTE_KEY: ReadyAnswer.of(outcome.response)}
        return invoke(self.inputs[place], self.configs[place], **self.arguments, **ready)


class _Called(NamedTuple):
    """The message of an ordinary call, in the place of an outcome."""

    response: Any
    records: tuple[()] = ()


def _body(rendered: RenderedCall) -> Mapping[str, Any]:
    """The body that the model would send."""
    made = rendered.model._get_request_payload(rendered.messages, **rendered.call_kwargs)  # noqa: SLF001 - as it sends
    payload = {name: value for name, value in made.items() if name not in _LEFT_OUT}
    for name in _ELSEWHERE:
        if payload.get(name):
            raise NotForBatchesError(f"{name} is not for batches")
    payload |= payload.pop("extra_body", None) or {}
    try:
        return as_json({name: value for name, value in payload.items() if name not in _ELSEWHERE}, "messages")
    except ConfigurationError as error:
        raise NotForBatchesError(f"only the SDK can send it: {error}") from None


def _parsed(rendered: RenderedCall, response: Any, endpoint: str) -> Any:
    """LangChain's result of an answer, made as its own classes make it."""
    model = rendered.model
    if endpoint == "messages":
        return model._format_output(response)  # noqa: SLF001 - as it reads its own
    if endpoint == "chat.completions":
        return model._create_chat_result(response)  # noqa: SLF001 - as above
    made = importlib.import_module("langchain_openai.chat_models.base")
    return made._construct_lc_result_from_responses_api(response, output_version=model.output_version)  # noqa: SLF001
