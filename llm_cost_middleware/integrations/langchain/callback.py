"""``CostCallbackHandler``: vetoes and books the calls of models that nobody wrapped.

A handler can refuse a call before a byte is sent, and book what it cost. It cannot choose the model or the output cap,
it sees no retry inside the SDK, and LangChain does not report every end: a call that is cancelled, and a stream that is
kept and not read, leave a start without an end. Their money stays reserved until it expires, and is then charged. And
``with_retry`` of a model that is not guarded asks again after a veto, to be refused again. Guard a model wherever you
can; this is for the rest.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tracers.context import register_configure_hook

from llm_cost_middleware.call_ids import BOOKED_KEY
from llm_cost_middleware.context import METADATA_KEY, current_context, read_context
from llm_cost_middleware.errors import LLMCostError, PriceNotFoundError
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.host import attach_billed_usage
from llm_cost_middleware.integrations.langchain.asked import with_own_terms
from llm_cost_middleware.integrations.langchain.convert import SourceModel, make_source, read_call
from llm_cost_middleware.integrations.langchain.errors import ERRORS
from llm_cost_middleware.integrations.langchain.names import DECISIONS, ModelName, model_of
from llm_cost_middleware.integrations.langchain.run_scopes import with_metadata
from llm_cost_middleware.integrations.langchain.runtime import ROUTE_KEY, RouteArgument
from llm_cost_middleware.integrations.langchain.structured import billed_usage
from llm_cost_middleware.integrations.langchain.usage import read_message
from llm_cost_middleware.nesting import MeteredRun, enclose
from llm_cost_middleware.pipeline import CostPipeline, PipelineSource
from llm_cost_middleware.request import CallContext, CallRequest, ModelRef
from llm_cost_middleware.tracker import CostRecord, CostTracker
from llm_cost_middleware.usage import read_or_unknown
from llm_cost_middleware.wire import OUTPUT_CAP_FIELDS

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import LLMResult


_log = logging.getLogger(__name__)
_OPEN, _MODELS = 10_000, 64


class PendingRun(NamedTuple):
    """A run between its start and its end, with the money set aside for it."""

    provider: str
    request: CallRequest
    target: ModelRef
    run: MeteredRun


_claimed_runs: dict[tuple[int, UUID], str] = {}
"""Runs by pipeline that a handler holds money for: two handlers on one run must not book it twice."""


class CostCallbackHandler(BaseCallbackHandler):
    """Refuses a call that does not fit the budget, and books what the others cost.

    Give it to a run (``config={"callbacks": [handler]}``), to a model, or to a whole block with ``cost_tracking``.
    Calls of guarded models pass untouched: they are booked where they are sent. An answer out of LangChain's own cache
    is booked at $0. Claude at Bedrock is booked at the price
    of its place, models of Azure and Vertex at the list price of the same model; one without a
    known price is treated as ``on_ungoverned`` says.

    Args:
        pipeline: A pipeline, a configuration for a new one, or ``None`` for the default.
    """

    raise_error = True  # otherwise a veto would be logged, and the call sent
    run_inline = True  # in order and on the caller's thread, also in an asynchronous run

    _lock = ForkSafeLock()

    def __init__(self, pipeline: PipelineSource | None = None) -> None:
        self.pipeline = CostPipeline.resolve(pipeline)
        self.call_ids: set[str] | None = None
        """Where it is a set, every call that started under this handler, whoever books it."""
        self.outer: CostCallbackHandler | None = None
        """The handler of the block around this one's, which counts these calls as well."""
        self._open: OrderedDict[UUID, PendingRun] = OrderedDict()
        self._sources: dict[ModelName, tuple[Mapping[str, Any], SourceModel]] = {}

    def on_chat_model_start(
        self,
        serialized: Mapping[str, Any],
        messages: Sequence[Sequence[BaseMessage]],
        *,
        run_id: UUID,
        metadata: Mapping[str, Any] | None = None,
        invocation_params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Set the call's money aside.

        Raises:
            BudgetExceededError: It does not fit; also a ``ModelError`` that no retry can help.
            UnsupportedRequestError: The model has no price, and ``on_ungoverned`` is ``deny``.
        """
        del kwargs
        call_kwargs, run_metadata = invocation_params or {}, metadata or {}
        if (route := call_kwargs.get(ROUTE_KEY)) is not None:
            if isinstance(route, RouteArgument) and route.call is not None:
                self._count(route.call.id)
            return
        claim = (id(self.pipeline), run_id)
        if (claimed := _claimed_runs.get(claim)) is not None:  # another handler of this pipeline holds it
            self._count(claimed)
            return
        model = model_of(run_metadata, call_kwargs, serialized, self.pipeline.config.platforms)
        if model is None:
            what = str(call_kwargs.get("_type") or "a chat model")
            self._let_pass(what, "no price is known for its provider", run_metadata)
            return
        context = _context_of(run_metadata)
        call_kwargs = with_own_terms(call_kwargs, serialized)
        request = read_call(self._source(model, call_kwargs), messages[0], {}, context=context, stream=False)
        try:
            held = self.pipeline.authorize(request)
        except PriceNotFoundError as error:
            target = ModelRef(model.provider, model.name)
            self._let_pass(str(target), str(error), run_metadata, target)
            return
        except LLMCostError as error:
            ERRORS.raised(error)
        call_id = held.attempt.call_id
        self._count(call_id)
        with self._lock:
            _claimed_runs[claim] = call_id
            run = MeteredRun(self.pipeline, held)
            self._open[run_id] = PendingRun(model.provider, request, held.attempt.target, run)
            if len(self._open) > _OPEN:  # a start whose end never came: it expires in the ledger
                lost, _ = self._open.popitem(last=False)
                _claimed_runs.pop((id(self.pipeline), lost), None)
        enclose(run)

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Note that the answer has begun: what is called between its chunks is no part of it."""
        del token, kwargs
        if (entry := self._open.get(run_id)) is not None:
            entry.run.waiting = False

    def on_chain_start(
        self, serialized: Mapping[str, Any], inputs: Any, *, metadata: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Decision models are not governed: they answer as a chain does whose run is of the type ``llm``."""
        del serialized, inputs
        if kwargs.get("run_type") == "llm":
            run_metadata = metadata or {}
            name = f"{run_metadata.get('ls_provider', 'a decision model')}/{run_metadata.get('ls_model_name', '')}"
            self._let_pass(name, DECISIONS, run_metadata)

    def on_llm_start(self, serialized: Mapping[str, Any], prompts: Sequence[str], **kwargs: Any) -> None:
        """Completions of the old kind are not governed."""
        del prompts
        name = (serialized or {}).get("name") or "a completion model"
        self._let_pass(str(name), "use a chat model", kwargs.get("metadata") or {})

    def _let_pass(self, what: str, advice: str, metadata: Mapping[str, Any], target: ModelRef | None = None) -> None:
        """Report or refuse a call that is not governed."""
        try:
            self.pipeline.ungoverned(what, advice, context=_context_of(metadata), target=target)
        except LLMCostError as error:
            ERRORS.raised(error)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Book the call."""
        del kwargs
        message: Any = getattr(response.generations[0][0], "message", None) if response.generations else None
        metadata = getattr(message, "response_metadata", None) or {}
        stamp = metadata.get(BOOKED_KEY)
        if isinstance(stamp, Mapping):
            self._count(str(stamp.get("call_id")))
        entry = self._take(run_id)
        if entry is not None and (held := entry.run.take()) is not None:
            reading = read_or_unknown(read_message, entry.provider, message, response.llm_output, entry.request)
            self._quietly(held.settle, reading)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Give the money back where nothing was billed; else book it."""
        del kwargs
        entry = self._take(run_id)
        if entry is not None and (held := entry.run.take()) is not None:
            attach_billed_usage(error, billed_usage(error, entry.target))
            self._quietly(held.fail, error)

    def _source(self, model: ModelName, call_kwargs: Mapping[str, Any]) -> SourceModel:
        """The settings of a model, read anew where they differ from those of its last call."""
        known = self._sources.get(model)
        if known is not None and known[0] == call_kwargs:
            return known[1]
        cap = next((call_kwargs[name] for name in OUTPUT_CAP_FIELDS if type(call_kwargs.get(name)) is int), None)
        source = make_source(model.provider, model.name, model.endpoint, {**call_kwargs, "model": model.name}, cap)
        with suppress(Exception):  # parameters that cannot be copied are read each time
            if len(self._sources) >= _MODELS:
                self._sources.clear()
            self._sources[model] = deepcopy(call_kwargs), source
        return source

    def _count(self, call_id: str) -> None:
        handler: CostCallbackHandler | None = self
        while handler is not None:
            if handler.call_ids is not None:
                handler.call_ids.add(call_id)
            handler = handler.outer

    def _take(self, run_id: UUID) -> PendingRun | None:
        with self._lock:
            entry = self._open.pop(run_id, None)
            if entry is not None:
                _claimed_runs.pop((id(self.pipeline), run_id), None)
                entry.run.waiting = False
        for call_id in entry.run.call_ids if entry is not None else ():
            self._count(call_id)
        return entry

    def _quietly(self, end: Any, what: Any) -> None:
        try:
            end(what)
        except Exception:  # noqa: BLE001 - the answer was paid for: booking it must not take it from the caller
            _log.exception("a call could not be booked; its reservation will expire and be charged")


def _context_of(metadata: Mapping[str, Any]) -> CallContext:
    """Whose call a run is: its own metadata says it, or the running block."""
    context = read_context(metadata[METADATA_KEY]) if METADATA_KEY in metadata else current_context()
    return with_metadata(context, metadata)


class Tracking:
    """The spending of a block of code so far, live: of every call that started in it."""

    def __init__(self, handler: CostCallbackHandler) -> None:
        self._handler = handler

    @property
    def records(self) -> tuple[CostRecord, ...]:
        """A record of every billed attempt, oldest first."""
        ids = self._handler.call_ids or ()
        return tuple(record for record in self._handler.pipeline.records() if record.call_id in ids)

    @property
    def tracker(self) -> CostTracker:
        """The same as an immutable value, with totals by model."""
        return CostTracker(None, self.records)

    @property
    def total_cost(self) -> Any:
        """US dollars, a ``Decimal``."""
        return self.tracker.total_cost


_tracking: ContextVar[CostCallbackHandler | None] = ContextVar("llm_cost_tracking", default=None)
# once, at import: LangChain keeps every hook for good
register_configure_hook(_tracking, inheritable=True)


@contextmanager
def cost_tracking(pipeline: PipelineSource | None = None) -> Iterator[Tracking]:
    """Veto and book every call of a block, whichever model makes it.

    It holds for what runs in this thread or task and in the tasks it starts; bare threads do not inherit it.

    Args:
        pipeline: A pipeline, a configuration for a new one, or ``None`` for the default.

    Yields:
        What the block has spent: ``total_cost``, ``records``, ``tracker``.
    """
    handler = CostCallbackHandler(pipeline)
    handler.outer, handler.call_ids = _tracking.get(), set()
    token = _tracking.set(handler)
    try:
        yield Tracking(handler)
    finally:
        _tracking.reset(token)


@contextmanager
def listening(handler: CostCallbackHandler) -> Iterator[None]:
    """Let ``handler`` hear every run of a block, unless another handler of its pipeline does so already."""
    present = _tracking.get()
    if present is not None and present.pipeline is handler.pipeline:
        yield
        return
    token = _tracking.set(handler)
    try:
        yield
    finally:
        _tracking.reset(token)
