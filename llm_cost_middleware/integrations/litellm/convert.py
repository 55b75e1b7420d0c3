"""One call of a LiteLLM router: keyword arguments to a request, and an attempt back to keyword arguments."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper
from msgspec import structs

from llm_cost_middleware.capabilities import find_capabilities
from llm_cost_middleware.config.gateways import is_gateway
from llm_cost_middleware.context import METADATA_KEY, read_context
from llm_cost_middleware.errors import UnsupportedRequestError
from llm_cost_middleware.host import Governed, ObservedStream
from llm_cost_middleware.integrations.litellm.arguments import (
    GOVERNED,
    METADATA,
    NOT_OF_SYNC_RESPONSES,
    RESENDING,
    SINGLE_ATTEMPT,
    SINGLE_EMBEDDING,
    SINGLE_RESPONSE,
    TIMEOUTS,
    UNSHADOWED,
    check_timeouts,
    find_metadata,
    is_own,
    laid_open,
    seconds_of,
)
from llm_cost_middleware.integrations.litellm.capture import AnswerCapture
from llm_cost_middleware.integrations.litellm.counting import DeploymentCounter
from llm_cost_middleware.integrations.litellm.departure import Departure, expect
from llm_cost_middleware.integrations.litellm.group import Group, ServedModels
from llm_cost_middleware.integrations.litellm.injection import note_host_marks
from llm_cost_middleware.integrations.litellm.mocks import (
    MADE_UP,
    MadeUpReader,
    deployment_of,
    is_made_up,
)
from llm_cost_middleware.integrations.litellm.signed_ids import signed
from llm_cost_middleware.integrations.litellm.streams import (
    ChatReader,
    EventReader,
    GovernedStreamWrapper,
    carries_usage,
    closing,
)
from llm_cost_middleware.integrations.litellm.usage import is_cached, read_answer
from llm_cost_middleware.lifecycle import CallOutcome
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.platform import find_platform
from llm_cost_middleware.provider import StreamUsageReader
from llm_cost_middleware.providers import get_provider, provider_of_endpoint, strip_foreign_cache_fields
from llm_cost_middleware.providers.content import read_content
from llm_cost_middleware.request import EMPTY, OF_SEVERAL_MODELS, Attempt, CallResult, Endpoint, ModelRef, RetryTerms
from llm_cost_middleware.sdk_clients.bodies import plain
from llm_cost_middleware.timeouts import capped_timeout
from llm_cost_middleware.usage import UsageReport, without_items, without_model
from llm_cost_middleware.wire import OUTPUT_CAP_FIELDS

OTHER_PLATFORM = "it is not known to reach only models that have a price here; call one of the groups that do"
"""What to do about a name that is not governed."""
SHADOW_ADVICE = "the copies are not sent, as nothing would hold or book them; call both models yourself"
"""What to do about a call that is ``shadowed``."""


class RouterCall:
    """A call of a router or of the proxy, as a ``HostCall``.

    Args:
        endpoint: Which API's shape the arguments have.
        arguments: As the caller gave them, ``model`` and messages included; never changed.
        group: The group that is called by its name; ``None``: the call is routed.
        groups: What calls can be routed to.
        defaults: What LiteLLM will add to arguments that are absent.
        own_timeout: The router or its deployments have timeouts of their own.
        asynchronous: The method that is called is.
        retries: The retries that the router's owner, or the caller, set; ``None``: those of ``[retry]``.

    Raises:
        ConfigurationError: The attributes under ``llm_cost`` cannot be used.
        UnsupportedRequestError: It has a timeout that is none, or hides another model.
    """

    __slots__ = (
        "_asynchronous", "_caps", "_capture", "_departure", "_endpoint", "_own_timeout", "_pipeline", "_returned",
        "_served", "arguments", "changes", "group", "providers", "request",
    )  # fmt: skip

    def __init__(
        self,
        endpoint: Endpoint,
        arguments: Mapping[str, Any],
        *,
        group: Group | None,
        groups: ServedModels,
        defaults: Mapping[str, Any],
        own_timeout: bool,
        asynchronous: bool,
        retries: RetryTerms | None = None,
    ) -> None:
        self.group, self._endpoint, self._asynchronous = group, endpoint, asynchronous
        check_timeouts("this request", {**defaults, **arguments})
        arguments = laid_open(arguments, defaults)
        self.arguments = {name: _plain(name, value) for name, value in arguments.items() if name not in RESENDING}
        """Plain keyword arguments, ``model`` and messages included, ``llm_cost`` taken out."""
        # the field that a deployment caps must be the one that is written: OpenAI refuses a chat with two
        self._caps = (
            {name: defaults[name] for name in OUTPUT_CAP_FIELDS if name in defaults and arguments.get(name) is None}
            if endpoint != "embeddings"
            else {}
        )
        self._served = groups
        self.changes: Mapping[str, Any] = EMPTY
        """What a call that was routed ahead changes at its target; otherwise the attempt says so."""
        self._own_timeout = own_timeout or any(arguments.get(name) is not None for name in TIMEOUTS)
        self._capture: AnswerCapture | None = None
        self._pipeline: CostPipeline | None = None
        self._departure = Departure()
        self._returned: Any = None
        given = {name: value for name, value in self.arguments.items() if value is not None}
        request = provider_of_endpoint(endpoint).read_request({**defaults, **given}, endpoint)
        placed = groups.places_marks if group is None else group.places_marks
        self.request = note_host_marks(request, arguments, placed=placed)._replace(
            stream=bool(arguments.get("stream")),
            context=read_context(find_metadata(arguments, METADATA_KEY)),
            model_pinned=group is not None,
            connection=f"{groups.router_id:x} {arguments['model']}",  # the deployments of a group share what they learn
            retry_terms=retries,
            prices=groups.prices if group is None else group.prices,
            settings={name: value for name, value in request.settings.items() if not is_own(name)},
            endpoint_at=_found_by_litellm,
        )
        self.providers = groups.reach
        """What the router can reach: every model it serves, or the provider of the group that was called."""
        forced = self.request.context.forced_model is not None  # to whatever it serves
        if group is None and "response_format" in self.request.settings and not forced:
            self.providers = frozenset(name for name in groups.reach if not _asked_by_forced_tool(name))
        if group is not None:
            self.request = self.request._replace(
                provider=group.target.provider, model=group.target.model, alternatives=group.alternatives
            )
            if group.alternatives:
                self.request = self.request._replace(params={**self.request.params, OF_SEVERAL_MODELS: True})
            self.providers = groups.reach | {str(group.target)} if forced else frozenset((group.target.provider,))

    def belong_to(self, pipeline: CostPipeline) -> None:
        """Let ``pipeline`` hold its money, which adds nothing to what a group with a gateway among its own is sent."""
        self._pipeline = pipeline
        config = pipeline.config
        if self.group is None:
            if self._served.hidden:
                self._served.tell_hidden(config)
            self.request = self.request._replace(gateways=self._served.behind_gateways(config))
        elif any(is_gateway(config, self.request.provider, address) for address in self.group.addresses):
            self.request = self.request._replace(bare=True)

    @property
    def shadowed(self) -> bool:
        """Whether LiteLLM would send it to a ``silent_model`` too, which it does with chats only."""
        return self._endpoint == "chat.completions" and self.group is not None and self.group.shadowed

    def write(self, attempt: Attempt) -> dict[str, Any]:
        """The keyword arguments of an attempt.

        Raises:
            UnsupportedRequestError: A model is forced that this router does not serve.
        """
        rules = get_provider(attempt.target.provider)
        attempt = _in_litellms_words(attempt, self.changes)
        if self.group is not None and self.group.alternatives:  # its deployments do not all understand the same marks
            attempt = structs.replace(attempt, cache_plan=None)
        sent = rules.write_request({**self.arguments, **self._caps}, attempt, self._endpoint)
        if self._endpoint in rules.endpoints:  # LiteLLM translates other shapes, and their cache fields with them
            sent = strip_foreign_cache_fields(sent, rules.name)
        if self.group is None and (effort := sent.get("reasoning_effort")) in _RARE_EFFORTS:
            sent["reasoning_effort"] = effort if _knows_effort(attempt.target, effort) else "high"
        sent["model"] = self._group_of(attempt.target)
        limit_s = attempt.limit_s(chosen=self._own_timeout)
        if limit_s is not None or sent.get("timeout") is not None:
            timeout = capped_timeout(seconds_of(sent.get("timeout")), limit_s)
            # only its chats take the phases of an httpx.Timeout
            sent["timeout"] = timeout if self._endpoint == "chat.completions" else getattr(timeout, "read", timeout)
        # LiteLLM keeps its own notes in it, which elsewhere is also the provider's
        bucket = METADATA[0] if self._endpoint in _WITHOUT_METADATA else METADATA[1]
        sent[bucket] = {**(sent.get(bucket) or {}), GOVERNED: signed(attempt.call_id)}
        self._departure = expect(attempt.call_id, self._pipeline)
        self._departure.keeps_answer = self._endpoint == "embeddings"
        if self.shadowed:
            sent[bucket] |= UNSHADOWED
        sent |= SINGLE_ATTEMPT
        if self._endpoint == "embeddings":
            sent |= SINGLE_EMBEDDING
        if self._endpoint == "responses":
            sent |= SINGLE_RESPONSE
            if not self._asynchronous:
                for name in NOT_OF_SYNC_RESPONSES:
                    del sent[name]
        return sent

    def render(self, attempt: Attempt) -> dict[str, Any]:
        """As ``write``, and LiteLLM shows what passes."""
        sent = self.write(attempt)
        self._capture = capture = AnswerCapture(self.arguments.get("logger_fn"))
        if self._endpoint != "messages":  # it shows nothing
            sent["logger_fn"] = capture.logger_fn
        return sent

    def read(self, attempt: Attempt, raw: Any) -> CallResult | ObservedStream:
        """What LiteLLM returned: an answer with its usage, or an open stream."""
        self._returned = raw
        # an iterator: LiteLLM reads ``stream`` as true at some doors where others take it for false, as with a 1
        if hasattr(raw, "__next__") or hasattr(raw, "__anext__"):
            return self.observe(attempt, raw)
        return CallResult(raw, self.read_usage(attempt, raw), read_content=read_content)

    def read_usage(self, attempt: Attempt, answer: Any) -> UsageReport:
        """The usage of a whole answer."""
        if self.is_made_up(answer):
            return MADE_UP
        target = self._served_by(attempt)
        if self._departure.answer is not None and is_cached(answer):  # in part: the rest was asked for
            answer = self._departure.answer
        reading = self._priced(target, read_answer(answer, target.provider, self._endpoint))
        odd = self._capture.odd_count if self._capture is not None else None
        return reading if odd is None else without_items(reading, odd)

    def is_made_up(self, answer: Any) -> bool:
        """Whether LiteLLM answered by itself. ``answer``: or its stream; ``None`` where an error came instead."""
        if self._endpoint == "embeddings":  # or its cache has them all
            return self._departure.never_left and self._departure.answer is None
        if self._endpoint != "chat.completions":
            return is_made_up(answer)
        if self._capture is not None:
            return self._capture.mocked
        # on the proxy: only by its own configuration, because it takes the arguments away that its clients send
        return deployment_of(answer) in self._served.mocked

    def observe(self, attempt: Attempt, stream: Any) -> ObservedStream:
        """An open stream, read as it passes."""
        reader: StreamUsageReader
        target = self._served_by(attempt)
        priced = partial(self._priced, target)
        is_injected = None
        if self.is_made_up(stream):
            reader = MadeUpReader()
        elif self._endpoint == "chat.completions":
            reader = ChatReader(stream, priced, target.provider, self._chunks)
            asked = (self.arguments.get("stream_options") or {}).get("include_usage")
            is_injected = None if asked else carries_usage
        else:
            reader = EventReader(stream, priced, provider_of_endpoint(self._endpoint).new_stream_reader())
        close = closing(stream, asynchronous=self._asynchronous)
        return ObservedStream(stream, reader, close, is_injected=is_injected)

    def billed_usage(self, attempt: Attempt, error: Exception) -> UsageReport | None:
        """The usage of an answer that LiteLLM could not use, and raised an error of its own instead."""
        target, never_left = self._served_by(attempt), self._departure.never_left
        capture = self._capture or AnswerCapture(None)  # the proxy's callers are shown nothing
        reading = capture.billed_usage(error, target.provider, never_left=never_left)
        return reading if reading is None or reading.unbilled else self._priced(target, reading)

    @property
    def counter(self) -> DeploymentCounter:
        """Asks with the key of the deployment that will serve the call."""
        return DeploymentCounter(self._endpoint, self.arguments, self._access)

    def _access(self, target: ModelRef) -> Mapping[str, Any] | None:
        return self.group.access if self.group is not None else self._served.access.get(target)

    def deliver(self, answer: Governed) -> Any:
        """LiteLLM's own object; a stream is of LiteLLM's own class where the one below is."""
        if isinstance(answer, CallOutcome):
            return answer.response
        return (
            GovernedStreamWrapper(self._returned, answer) if isinstance(self._returned, CustomStreamWrapper) else answer
        )

    @property
    def _chunks(self) -> list[Any] | None:
        return self._capture.chunks if self._capture is not None else None

    def _served_by(self, attempt: Attempt) -> ModelRef:
        """The model that an attempt was sent to: of a group of several, the one that LiteLLM picked."""
        if self.group is None or self._departure.target not in self.group.alternatives:
            return attempt.target
        return self._departure.target

    def _priced(self, target: ModelRef, reading: UsageReport) -> UsageReport:
        """A reading that is priced as its deployment is: by its own price, whatever model the answer names."""
        group = self.group
        if group is not None and target == self._departure.target and group.alternatives:
            reading = structs.replace(reading, served_by=(target.provider, target.model))
        own = target in self._served.own_priced if group is None else group.prices is not None
        if group is not None and (picked := group.apart.get(self._departure.deployment)) is not None:
            reading, own = structs.replace(reading, prices=picked.prices), picked.own
        platform = find_platform(target.provider)
        # the id that was called says which model it is; LiteLLM writes the deployment's name into the answer
        own = own or (platform is not None and not platform.deploys)
        return without_model(reading) if own else reading

    def _group_of(self, target: ModelRef) -> str:
        if self.group is not None and self.group.target == target:
            return str(self.arguments["model"])
        if target in self._served.groups:
            return self._served.groups[target]
        raise UnsupportedRequestError(str(target), "this router has no deployment of it: add one to its model_list")


_WITHOUT_METADATA = ("chat.completions", "embeddings")
_RARE_EFFORTS = ("xhigh", "max")


def _knows_effort(target: ModelRef, effort: str) -> bool:
    """Whether LiteLLM's map has a level of effort for a model: it refuses these levels for models that it lacks."""
    return _litellm_says(target, f"supports_{effort}_reasoning_effort")


def _asked_by_forced_tool(name: str) -> bool:
    """Whether LiteLLM asks a model for structured output by a tool that it forces, and the model takes no such tool.

    It does for models whose structured output it does not know of, such as those that its map lacks.
    """
    provider, _, model = name.partition("/")
    known = find_capabilities(provider, model)
    if known is None or known.forced_tools:
        return False
    return not _litellm_says(ModelRef(provider, model), "supports_native_structured_output")


def _litellm_says(target: ModelRef, what: str) -> bool:
    from litellm import get_model_info

    try:
        info = get_model_info(target.model, custom_llm_provider=target.provider)
    except Exception:  # noqa: BLE001 - whatever it raises for a name that it does not know
        return False
    return bool(info.get(what))


def _found_by_litellm(_: ModelRef) -> Endpoint | None:
    """``None``: LiteLLM sends a call to whichever endpoint of the model takes it."""
    return None


def _plain(name: str, value: Any) -> Any:
    """An argument without the attributes of this package, message objects of LiteLLM as mappings."""
    if name in METADATA and isinstance(value, Mapping):
        return {key: item for key, item in value.items() if key != METADATA_KEY}
    return plain(value) if name in _HELD_FOR else value


_HELD_FOR = frozenset({
    "messages", "input", "tools", "system", "functions", "response_format", "extra_body", "thinking", "reasoning",
    "output_config", "text", "stop", "web_search_options",
})  # fmt: skip
"""Arguments that a bound reads: they are copied, so that what is sent is what money is held for."""


def _in_litellms_words(attempt: Attempt, changes: Mapping[str, Any]) -> Attempt:
    """The attempt with the changes of a call that was routed ahead, and its fields as LiteLLM takes them.

    ``metadata`` is LiteLLM's own, and Claude's user id its ``user``.
    """
    if changes:
        attempt = structs.replace(attempt, changes=changes)
    if not attempt.fields:
        return attempt
    user = (attempt.fields.get("metadata") or {}).get("user_id")
    kept = {name: value for name, value in attempt.fields.items() if name != "metadata"}
    return structs.replace(attempt, fields=kept if user is None else {"user": user, **kept})
