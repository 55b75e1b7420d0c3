"""``CostLogger``: books what LiteLLM reports, where nothing can be governed."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping
from contextvars import copy_context
from functools import partial
from hashlib import blake2b
from typing import Any

from litellm.integrations.custom_logger import CustomLogger

from llm_cost_middleware.context import METADATA_KEY, read_context
from llm_cost_middleware.errors import LLMCostError
from llm_cost_middleware.integrations.litellm.arguments import find_metadata
from llm_cost_middleware.integrations.litellm.mocks import is_made_up, shows_mock
from llm_cost_middleware.integrations.litellm.signed_ids import governed_call_id
from llm_cost_middleware.integrations.litellm.usage import read_answer
from llm_cost_middleware.nesting import enclosing_run, leaving_call
from llm_cost_middleware.pipeline import CostPipeline, PipelineSource
from llm_cost_middleware.providers import NAMES
from llm_cost_middleware.request import Endpoint, ModelRef
from llm_cost_middleware.wire import field_reader

_log = logging.getLogger(__name__)
_REMEMBERED = 10_000
"""Calls that another listener books, at most."""
_ID_LENGTH = 48
"""Characters of LiteLLM's id of a call that the id of its row shows: all of those that it makes itself."""


class CostLogger(CustomLogger):  # type: ignore[misc]  # LiteLLM is not typed
    """A callback for ``litellm.callbacks`` that books what was spent. It meters; it holds nothing back.

    LiteLLM calls its callbacks after the answer, in the background, and not always. What it does not report is not
    booked: calls that were cancelled or timed out, streams that were left before their end, the last calls of a process
    that ends at once, and everything once a hundred callbacks are registered. A stream is booked as ``estimated``,
    because LiteLLM fills in counts of its own, unmarked, where the provider sent none. To hold a budget, use
    ``CostAwareRouter``, or ``proxy.governor`` on the proxy. Calls that these govern are not booked again.

    Args:
        pipeline: A pipeline, a configuration for a new one, or ``None`` for the default.
    """

    def __init__(self, pipeline: PipelineSource | None = None) -> None:
        super().__init__()
        self.pipeline = CostPipeline.resolve(pipeline)
        self._booked_elsewhere: OrderedDict[str, bool] = OrderedDict()
        self.name = f"llm-cost-{os.urandom(4).hex()}"  # LiteLLM takes two loggers without a text of their own for one

    def log_pre_api_call(self, model: str, messages: Any, kwargs: dict[str, Any]) -> None:
        """Remember a call that others book: LangChain's ``CostCallbackHandler``, or the client that it is sent by."""
        del messages
        call_id = str(kwargs.get("litellm_call_id"))
        self._booked_elsewhere.pop(call_id, None)  # it may be another attempt of the call
        if enclosing_run(self.pipeline, str(model).rpartition("/")[2]) is not None:
            self._step_back(call_id)
        leaving_call("litellm", call_id).reported_to(self.pipeline, partial(self._step_back, call_id))

    def _step_back(self, call_id: str) -> None:
        self._booked_elsewhere[call_id] = True
        while len(self._booked_elsewhere) > _REMEMBERED:  # LiteLLM does not report every call
            self._booked_elsewhere.popitem(last=False)

    def log_success_event(self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any) -> None:
        """LiteLLM's report of a call of its synchronous side."""
        del start_time, end_time
        self._book(kwargs, response_obj)

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """LiteLLM's report of a call of its asynchronous side."""
        del start_time, end_time
        book = partial(copy_context().run, self._book, kwargs, response_obj)
        try:
            booking = asyncio.get_running_loop().run_in_executor(None, book)
        except RuntimeError:  # the process ends: LiteLLM delivers what is left, and no thread takes any more work
            book()
        else:
            await asyncio.shield(booking)  # a loop that ends cancels what waits, and with it what no thread has begun

    def _book(self, kwargs: Mapping[str, Any], answer: Any) -> None:
        params = kwargs.get("litellm_params") or {}
        provider = kwargs.get("custom_llm_provider") or params.get("custom_llm_provider")
        if provider not in NAMES or governed_call_id(params) is not None or kwargs.get("cache_hit"):
            return
        call_id = str(kwargs.get("litellm_call_id") or os.urandom(8).hex())
        if call_id in self._booked_elsewhere:
            return
        if shows_mock(kwargs) or is_made_up(answer):
            return
        target = ModelRef(provider, str(kwargs.get("model") or "").removeprefix(f"{provider}/"))
        native = isinstance(answer, dict) and answer.get("type") == "message"
        endpoint: Endpoint = "messages" if native else "chat.completions"
        try:
            self.pipeline.book(
                read_answer(answer, provider, endpoint),
                target,
                read_context(find_metadata(params, METADATA_KEY)),
                id=_row_id(call_id, field_reader(answer)("id")),
                estimated=bool(kwargs.get("stream")),
            )
        except LLMCostError as error:
            _log.error("a call of %s was not booked: %s", target, error)


def _row_id(call_id: str, answer_id: Any) -> str:
    """The id of the row of an answer: LiteLLM's own may be chosen by a client, so two calls of one id are two bills."""
    # of bounded length: of LiteLLM's ids of answers some are longer than a row's may be, and a client's may be anything
    told_apart = blake2b(f"{call_id}\n{answer_id}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"logged.{call_id[:_ID_LENGTH]}.{told_apart}"
