"""One model object for each model that a guarded model may be routed to, with the user's settings carried over."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from llm_cost_middleware.capabilities.efforts import stated_effort
from llm_cost_middleware.config.gateways import is_gateway, platform_at
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.host import connection_id
from llm_cost_middleware.integrations.langchain.called import CLIENT_FIELDS, ModelNames, held_client
from llm_cost_middleware.integrations.langchain.convert import SourceModel, make_source
from llm_cost_middleware.integrations.langchain.efforts import without_implied_thinking
from llm_cost_middleware.integrations.langchain.single_attempt import HeldClients, make_single_attempt
from llm_cost_middleware.integrations.langchain.thinking import fit_thinking
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.platform import PLATFORMS, maker_of
from llm_cost_middleware.request import EMPTY, Endpoint, ModelRef
from llm_cost_middleware.wire import OUTPUT_CAP_FIELDS

PACKAGES: Mapping[str, str] = {"anthropic": "langchain_anthropic", "openai": "langchain_openai"}
_CLASSES = {
    ("langchain_anthropic.chat_models", "ChatAnthropic"): ("anthropic", "anthropic-chat"),
    ("langchain_openai.chat_models.base", "ChatOpenAI"): ("openai", "openai-chat"),
    ("langchain_openai.chat_models.azure", "AzureChatOpenAI"): ("azure", "azure-openai-chat"),
}
_KEY_FIELD = {"anthropic": "anthropic_api_key", "openai": "openai_api_key"}
_URL_FIELD = {"anthropic": "anthropic_api_url", "openai": "openai_api_base"}
_TIMEOUT_FIELD = {"anthropic": "default_request_timeout", "openai": "request_timeout"}
_STOP_FIELD = {"anthropic": "stop_sequences", "openai": "stop"}

# fields of the guarded model and its runs, not of the requests of a target
_OWN = frozenset({
    "callbacks", "tags", "metadata", "cache", "rate_limiter", "verbose", "name", "custom_get_token_ids", "profile",
    "disable_streaming", "streaming", "stream_usage", "max_retries", "max_tokens", "model", "model_name",
})  # fmt: skip
# settings without a meaning at another provider: a model that uses one stays at its own
_PROVIDER_ONLY = (
    "mcp_servers", "container", "context_management", "user_profile_id", "betas", "inference_geo", "n", "logprobs",
    "top_logprobs", "logit_bias", "seed", "presence_penalty", "frequency_penalty", "store", "include", "truncation",
    "extra_body", "use_previous_response_id", "service_tier",
)  # fmt: skip
_BODY = {
    "anthropic": (
        "temperature", "top_p", "top_k", "stop_sequences", "thinking", "inference_geo", "output_config",
        "context_management", "container", "mcp_servers", "betas", "user_profile_id",
    ),
    "openai": (
        "temperature", "top_p", "frequency_penalty", "presence_penalty", "logprobs", "top_logprobs", "logit_bias",
        "seed", "n", "stop", "reasoning_effort", "reasoning", "verbosity", "service_tier", "store", "truncation",
        "include", "context_management", "prompt_cache_options",
    ),
}  # fmt: skip
"""Fields that are sent, by the names that they are sent under."""


def provider_of(model: Any) -> str | None:
    """The provider whose own API a chat model speaks, or Azure; ``None`` for any other class, Bedrock and Vertex too.

    ``ChatOpenAI`` at an address of Azure's is Azure's.
    """
    for kind in type(model).__mro__:
        known = _CLASSES.get((kind.__module__, kind.__name__))
        if known is not None:
            provider, transport = known
            if getattr(model, "_llm_type", transport) != transport:
                return None
            return (
                provider if provider in PLATFORMS else platform_at(provider, _address_of(model, provider)) or provider
            )
    return None


def _address_of(model: Any, maker: str) -> Any:
    """Where a model sends, as far as it says so."""
    client = held_client(model)
    return getattr(client, "base_url", None) or getattr(model, _URL_FIELD[maker], None)


def plain_class(model: Any) -> Any:
    """The user's own class behind a guarded or a plain model."""
    made = getattr(type(model), "_llm_cost_plain", None)
    return type(model) if made is None else made()


class TargetModels:
    """The model objects that a guarded model sends through. Each is built once, on first use; safe between threads.

    Args:
        model: The user's model.
        pipeline: Its configuration says where keys and addresses of the other provider stand.
    """

    _lock = ForkSafeLock()

    def __init__(self, model: Any, pipeline: CostPipeline) -> None:
        provider, config = provider_of(model), pipeline.config
        if provider is None:
            raise TypeError(f"{type(model).__qualname__} speaks no known provider's own API")
        self._model, self._pipeline, self._config, self.maker = model, pipeline, config, maker_of(provider)
        self._built: dict[tuple[ModelRef, str], Any] = {}
        self._names = ModelNames(model, config, provider)
        self.source: SourceModel = _read_source(model, provider, self._names, self._endpoint_at)
        stops = provider == "anthropic" and bool(model.stop_sequences)  # OpenAI's reasoning models take none
        self._names.home = ModelRef(provider, self.source.plain.model)
        gateway = getattr(model, "azure_endpoint", None) or getattr(model, _URL_FIELD[self.maker], None)
        self._bare = is_gateway(config, provider, gateway) or self._names.bare_streams
        self.source = self.source._replace(bare=self._bare)
        elsewhere = bool(gateway) and _is_set(model, _URL_FIELD[self.maker]) and not config.access(provider).base_url
        # an address of the user's own is a gateway: what it serves is known to nobody else; who calls a platform stays
        self.pinned_to_provider = (
            stops or elsewhere or provider in PLATFORMS or any(_is_set(model, name) for name in _PROVIDER_ONLY)
        )
        """Its settings mean nothing elsewhere."""
        self.own_provider = self._names.reach(self.source.endpoint)
        reachable = {*self.own_provider}
        if not self.pinned_to_provider:
            reachable |= {name for name in PACKAGES if name != provider and self._reaches(name)}
        self.clients = HeldClients(model, self.maker, pipeline)
        """Those of the user's model, as it holds them at each use."""
        self.params: Mapping[str, Any] | None = None
        """What the model says of itself to LangChain's callbacks, once asked; ``ls_params``: to traces."""
        self.ls_params: Mapping[str, Any] | None = None
        self.providers = frozenset(reachable)

    def _reaches(self, provider: str) -> bool:
        return bool(self._key(provider)) and find_spec(PACKAGES[provider]) is not None

    def _key(self, provider: str) -> str | None:
        return os.environ.get(self._config.providers[provider].api_key_env)

    def get(self, target: ModelRef, changes: Mapping[str, Any] = EMPTY) -> Any:
        """The model object for ``target``, its settings changed as an attempt there says."""
        key = target, repr(changes) if changes else ""
        built = self._built.get(key)
        if built is None:
            with self._lock:
                built = self._built.get(key)
                if built is None:
                    same = target.provider == self.source.provider
                    made = (self._same if same else self._other)(target, changes)
                    maker, held = maker_of(target.provider), same and not self._names.moves(target)
                    clients = self.clients if held else HeldClients(made.model_copy(), maker, self._pipeline)
                    built = make_single_attempt(made, maker, clients)
                    if len(self._built) >= _BUILT:
                        self._built.clear()
                    self._built[key] = built
        return built

    def for_request(
        self, target: ModelRef, messages: Sequence[Any], arguments: dict[str, Any], changes: Mapping[str, Any]
    ) -> Any:
        """The model object for one request to ``target``."""
        # thinking changes with every cap, and is copied in: the object behind it is kept
        model = self.get(target, {name: value for name, value in changes.items() if name != "thinking"})
        if target.provider != "anthropic":
            return model
        fitted = fit_thinking(model, messages, arguments, changes)
        at_home = target == (self.source.provider, self.source.model)
        return fitted if at_home else without_implied_thinking(fitted, messages, arguments)

    def _endpoint_at(self, target: ModelRef) -> Endpoint | None:
        """Where LangChain calls a model: its class decides between the two of OpenAI, by name and tools."""
        if maker_of(target.provider) != "openai":
            return self.source.endpoint if self.source.provider == target.provider else "messages"
        if self.maker != "openai":
            return "responses" if _prefers_responses(target.model) else "chat.completions"
        if self.source.endpoint == "responses":
            return "responses"
        twin = self._model.model_copy(update=self._names.settings(target))
        return "responses" if twin._use_responses_api({}) else "chat.completions"  # noqa: SLF001 - its own rule

    def _same(self, target: ModelRef, changes: Mapping[str, Any]) -> Any:
        """The user's own class and settings with another model name."""
        model = self._model
        fields = type(model).model_fields
        settings = {
            name: getattr(model, name)
            for name in model.model_fields_set
            if name not in _OWN and name in fields and getattr(model, name) is not None
        }
        if settings.get("openai_proxy"):  # the transports were made from it
            settings.pop("http_client", None)
            settings.pop("http_async_client", None)
        if self._bare:  # LangChain asks gateways for no usage, unless its user does
            settings["stream_usage"] = model.stream_usage and not self._names.bare_streams
        if self._names.moves(target):  # the clients that it holds call another deployment
            settings = {name: value for name, value in settings.items() if name not in CLIENT_FIELDS}
        settings = _changed(settings, changes, target.provider)
        return _construct(plain_class(model), {**settings, **self._names.settings(target)})

    def _other(self, target: ModelRef, changes: Mapping[str, Any]) -> Any:
        """The other provider's class, with the settings that mean the same there."""
        model, source, there = self._model, self.source.provider, target.provider
        left = {name for name, value in changes.items() if value is None}
        pairs = (("temperature", "temperature"), ("top_p", "top_p"), (_TIMEOUT_FIELD[source], _TIMEOUT_FIELD[there]),
                 (_STOP_FIELD[source], _STOP_FIELD[there]))  # fmt: skip
        settings: dict[str, Any] = {
            to: value for name, to in pairs if name not in left and (value := getattr(model, name, None)) is not None
        }
        settings[_KEY_FIELD[there]] = self._key(there)
        if url := self._config.providers[there].base_url:
            settings[_URL_FIELD[there]] = url
        return _construct(_class_of(there), {**settings, **self._names.settings(target)})


_BUILT = 64
"""Model objects that are kept for one guarded model."""


def _read_source(
    model: Any, provider: str, names: ModelNames, endpoint_at: Callable[[ModelRef], Endpoint | None] | None = None
) -> SourceModel:
    maker, name = maker_of(provider), names.called
    body: dict[str, Any] = {"model": name, **(model.model_kwargs or {}), **(getattr(model, "extra_body", None) or {})}
    body |= {key: value for key in _BODY[maker] if (value := getattr(model, key, None)) is not None}
    effort = getattr(model, "reasoning_effort", None)
    if provider == "anthropic" and effort:
        body["output_config"] = {**(body.get("output_config") or {}), "effort": effort}
    endpoint: Endpoint = "messages"
    if maker == "openai":
        endpoint = "responses" if model._use_responses_api(body) else "chat.completions"  # noqa: SLF001 - its own rule
    cap = getattr(model, "max_tokens", None)
    if provider == "anthropic" and cap == (model.profile or {}).get("max_output_tokens", _ANTHROPIC_FALLBACK):
        cap = None  # filled in from the model's profile: ChatAnthropic leaves no other trace of who set it
    cap = next((body[c] for c in OUTPUT_CAP_FIELDS if body.get(c)), cap)
    source = make_source(
        provider, name, endpoint, body, cap if type(cap) is int else None, endpoint_at, read_name=names.read
    )  # fmt: skip
    key: Any = getattr(model, _KEY_FIELD[maker], None)
    secret = key.get_secret_value() if hasattr(key, "get_secret_value") else key
    connection = connection_id(getattr(model, "azure_endpoint", None) or getattr(model, _URL_FIELD[maker], ""), secret)
    return source._replace(connection=connection, effort=stated_effort(body))


_ANTHROPIC_FALLBACK = 4_096
_USUAL_TIERS = ("auto", "default", "standard_only")


def _is_set(model: Any, name: str) -> bool:
    value = model.model_kwargs.get(name) or getattr(model, name, None)
    return bool(value) and not (name == "n" and value == 1) and not (name == "service_tier" and value in _USUAL_TIERS)


def _changed(settings: dict[str, Any], changes: Mapping[str, Any], provider: str) -> dict[str, Any]:
    """Settings of a model with the changes of an attempt, which name them as they are sent."""
    if not changes:
        return settings
    if "output_config" in changes:
        settings.pop("reasoning_effort", None)  # ChatAnthropic would write it over the change
    for holder in ("model_kwargs", "extra_body"):
        if settings.get(holder):
            settings[holder] = {name: value for name, value in settings[holder].items() if name not in changes}
    fields = {*_BODY[maker_of(provider)]}
    for name, value in changes.items():
        settings.pop(name, None)
        if value is not None and name in fields:
            settings[name] = value
    return settings


def _prefers_responses(model: str) -> bool:
    from langchain_openai.chat_models.base import _model_prefers_responses_api

    return bool(_model_prefers_responses_api(model))


def _class_of(provider: str) -> Any:
    if provider == "anthropic":
        from langchain_anthropic import ChatAnthropic

        return ChatAnthropic
    from langchain_openai import ChatOpenAI

    return ChatOpenAI


def _construct(kind: Any, settings: Mapping[str, Any]) -> Any:
    return kind(**{"stream_usage": True, **settings, "max_retries": 0})
