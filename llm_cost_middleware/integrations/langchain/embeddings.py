"""Embedding models of LangChain: what they send through is governed, nothing else about them changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from langchain_core.embeddings import Embeddings

from llm_cost_middleware.config.gateways import is_gateway, platform_at
from llm_cost_middleware.config.sent_names import SentNames
from llm_cost_middleware.context import read_context
from llm_cost_middleware.errors import LLMCostError
from llm_cost_middleware.host import Governed, ainvoke, client_connection, invoke, retries_of
from llm_cost_middleware.integrations.langchain.errors import ERRORS
from llm_cost_middleware.lifecycle import CallOutcome
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import Attempt, CallResult
from llm_cost_middleware.sdk_clients.bodies import fields_of, plain_body
from llm_cost_middleware.sdk_clients.single_attempt import client_of, single_attempt
from llm_cost_middleware.timeouts import capped_timeout
from llm_cost_middleware.usage import UsageReport, read_or_unknown

E = TypeVar("E", bound=Embeddings)
_MAKER = "openai"
_CLASSES = {
    ("langchain_openai.embeddings.base", "OpenAIEmbeddings"): _MAKER,
    ("langchain_openai.embeddings.azure", "AzureOpenAIEmbeddings"): "azure",
}


def guard_embeddings(model: E, pipeline: CostPipeline) -> E:
    """A copy of an ``OpenAIEmbeddings`` or Azure's whose requests are held, retried and booked; another as it is.

    LangChain gives embeddings no config: what a call says of itself stands in ``cost_context(...)`` around it.

    Raises:
        UnsupportedRequestError: It is of another class, and ``on_ungoverned`` is ``deny``.
    """
    nearest = next((kind for kind in type(model).__mro__ if kind.__module__.startswith("langchain_openai.")), None)
    service = None if nearest is None else _CLASSES.get((nearest.__module__, nearest.__name__))
    if service is None:
        pipeline.ungoverned(type(model).__name__, "guard an OpenAIEmbeddings or AzureOpenAIEmbeddings", leaves=False)
        return model
    governed = {
        name: kind(_plain(held), pipeline, service)
        for name, kind in (("client", _Resource), ("async_client", _AsyncResource))
        if (held := getattr(model, name)) is not None
    }
    return model.model_copy(update=governed)  # type: ignore[attr-defined,no-any-return]  # it is a pydantic model


def _plain(held: Any) -> Any:
    return held.plain if isinstance(held, _Resource) else held


class EmbeddingCall:
    """One request for embeddings, as a ``HostCall``."""

    def __init__(self, body: dict[str, Any], client: Any, pipeline: CostPipeline, service: str) -> None:
        self._options = {name: body.pop(name) for name in _OPTIONS if name in body}
        self._body, self._client, self._rules = plain_body(body, None), client, get_provider(_MAKER)
        address = getattr(client, "base_url", "")
        service = platform_at(service, address) or service
        self._names = SentNames(pipeline.config, service, client, "embeddings")
        self.providers = self._names.reach
        request = self._rules.read_request(self._body, "embeddings")
        self._called = request.model
        self.request = self._names.read(request, "")._replace(
            context=read_context(None),
            connection=client_connection(client),
            retry_terms=retries_of(client),
            bare=is_gateway(pipeline.config, service, address),
        )

    def render(self, attempt: Attempt) -> dict[str, Any]:
        """Arguments of the resource's ``create``."""
        sent = {**self._options, **self._rules.write_request(self._body, attempt, "embeddings")}
        sent["model"] = self._names.written(attempt.target, self._called)
        own = self._options.get("timeout", getattr(self._client, "timeout", None))
        limit_s = attempt.limit_s(chosen="timeout" in self._options)
        return sent if limit_s is None else {**sent, "timeout": capped_timeout(own, limit_s)}

    def read(self, attempt: Attempt, raw: Any) -> CallResult:
        """The answer with its usage."""
        del attempt
        return CallResult(raw, read_or_unknown(self._rules.read_usage, fields_of(raw)))

    def billed_usage(self, attempt: Attempt, error: Exception) -> UsageReport | None:
        """No answer is known behind an error."""

    def deliver(self, answer: Governed) -> Any:
        """The SDK's own object."""
        return answer.response if isinstance(answer, CallOutcome) else answer


_OPTIONS = ("extra_headers", "extra_query", "extra_body", "timeout")


class _Resource:
    """Stands in for ``client.embeddings``, whose ``create`` is all that LangChain calls."""

    def __init__(self, plain: Any, pipeline: CostPipeline, service: str) -> None:
        self.plain, self._pipeline, self._service = plain, pipeline, service

    def _send(self, sent: Mapping[str, Any]) -> Any:
        return single_attempt(self.plain, _MAKER, self._pipeline).create(**sent)

    def _call(self, body: Mapping[str, Any]) -> EmbeddingCall:
        return EmbeddingCall(dict(body), client_of(self.plain), self._pipeline, self._service)

    def create(self, **body: Any) -> Any:
        try:
            return invoke(self._pipeline, self._call(body), self._send)
        except LLMCostError as error:
            ERRORS.raised(error)

    def __getattr__(self, name: str) -> Any:
        if name == "plain":  # of a copy in the making
            raise AttributeError(name)
        return getattr(self.plain, name)


class _AsyncResource(_Resource):
    async def create(self, **body: Any) -> Any:
        async def send(sent: dict[str, Any]) -> Any:
            return await self._send(sent)

        try:
            return await ainvoke(self._pipeline, self._call(body), send)
        except LLMCostError as error:
            ERRORS.raised(error)
