"""The host-neutral view of one model call: what every room reads, and what no room changes.

``CallRequest`` describes what the caller wants, ``Attempt`` what is to be sent this time, ``CallResult`` and
``CallStream`` what came back. Hosts convert to and from their own messages in their ``convert.py``; the objects of the
caller stay where they are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

from msgspec import Struct
from msgspec.structs import replace

from llm_cost_middleware.contents import RequestContents
from llm_cost_middleware.usage import UsageReport
from llm_cost_middleware.wire import OUTPUT_CAP_FIELDS

OF_SEVERAL_MODELS = "of_several_models"
"""Key in ``CallRequest.params``: behind the name that is called stand several models, so that no count is exact."""
MARKED_BY_HOST = "marked_by_host"
"""Key among the parameters of a request to which its host will add cache marks that its user configured there."""
Endpoint = Literal["messages", "chat.completions", "responses", "embeddings"]
Role = Literal["system", "user", "assistant", "tool"]
PartKind = Literal["text", "image", "document", "audio", "tool_use", "tool_result", "thinking", "other"]
# Shared as a default, so it must not be writable.
EMPTY: Mapping[str, Any] = MappingProxyType({})


# Structs are made and read in C. A long conversation has hundreds of these, and none can lead back to itself.
class Part(Struct, frozen=True, gc=False):
    """One content block, as the provider counts blocks."""

    kind: PartKind
    text: str = ""
    """The text that is tokenised: the text itself, a tool call's JSON, a tool result's text."""
    cache_ttl: str | None = None
    """The lifetime of a cache mark that the caller set on this block: ``5m``, ``1h``, ``30m``; ``None`` without one."""
    media: Mapping[str, Any] = EMPTY
    """What a bound needs of a block that is not text, where known: ``width``, ``height``, ``pages``, ``bytes``,
    ``detail``, ``url``, ``seconds``; ``tokens`` of an input that is written in tokens."""
    nested: tuple[Part, ...] = ()
    """Blocks inside this one that are not text (an image in a tool result)."""
    inner_marks: tuple[str, ...] = ()
    """The lifetimes of the cache marks that the caller set on blocks inside this one, in their order."""


class Message(Struct, frozen=True, gc=False):
    """One message. System messages come first, however the provider transports them."""

    role: Role
    parts: tuple[Part, ...]


class Tool(Struct, frozen=True, gc=False):
    """A client-side tool: name, its whole definition as JSON text, and the caller's cache mark if it bears one."""

    name: str
    text: str
    cache_ttl: str | None = None
    place: int = -1
    """Its index in the caller's list of tools; -1: the client tools come first, in their order."""
    deferred: bool = False
    """It is no part of the prompt until a search finds it (``defer_loading``), and cannot bear a cache mark."""


class ServerTool(Struct, frozen=True, gc=False):
    """A tool that the provider runs itself and bills for: its type, and the most uses the request allows."""

    kind: str
    max_uses: int | None = None
    cache_ttl: str | None = None
    """The lifetime of the caller's cache mark on it."""
    place: int = -1
    """Its index in the caller's list of tools; -1: it is not in it, or behind the client tools."""


class CallContext(NamedTuple):
    """Attributes that the application gives a call beside the request itself. None of them reaches a provider."""

    scopes: tuple[str, ...] = ()
    """Budget scopes such as ``user:42``; ``global`` is implied."""
    tags: tuple[str, ...] = ()
    call_site: str = ""
    """The call site, where the application names it; otherwise it is derived from the request."""
    forced_model: str | None = None
    """A model that wins over every policy."""
    item_count: int = 1
    """How many items the prompt batches (the classic rule's second feature)."""
    conversation: str | None = None
    """A stable id of the conversation or task, where the application has one."""
    max_cost_nanousd: int | None = None
    """The most this one call may cost, all of its attempts together, in nano-dollars."""
    patience_s: float | None = None
    """Seconds that the application can wait for the answer, where it says so; 0: it cannot, whatever its call site
    may; ``None``: it says nothing."""


NO_CONTEXT = CallContext()


class RetryAdvice(NamedTuple):
    """What the owner of a host wishes after one failed attempt; what is ``None`` stays as ``[retry]`` has it."""

    max_attempts: int | None = None
    """Requests of this call, the first included."""
    retryable: bool | None = None
    """``True``: also a failure against which a retry does not help by our own rules; ``False``: none at all."""
    at_once: bool = False
    """Without a wait: another deployment takes the next attempt."""
    least_delay_s: float = 0.0
    """Seconds to wait at least."""
    deadline_s: float | None = None
    """Seconds from the start of this call after which no other attempt begins."""


class RetryTerms(Protocol):
    """The retries that a host's owner, or the caller, set for one call, over ``[retry]``."""

    def after(self, error: BaseException, attempt: int) -> RetryAdvice:
        """What is wished after attempt number ``attempt`` (1 for the first) ended with ``error``."""
        ...


class FixedRetries(NamedTuple):
    """``RetryTerms`` of a host that knows one number, whatever the error."""

    max_attempts: int
    """Requests of a call, the first included."""

    def after(self, error: BaseException, attempt: int) -> RetryAdvice:
        """As in ``RetryTerms``."""
        del error, attempt
        return RetryAdvice(self.max_attempts)


class _Contents:
    """Counts when asked, and stands back: the next look finds the counts among the request's own attributes."""

    def __get__(self, request: CallRequest, owner: type) -> RequestContents:
        found = request.__dict__["contents"] = RequestContents(request.messages, request.tools)
        return found


class CallRequest(Struct, frozen=True, dict=True):
    """One model call as the caller wants it."""

    provider: str
    """The provider in whose form it was written: ``anthropic`` or ``openai``."""
    model: str
    """The model as the caller named it, without the provider."""
    messages: Sequence[Message]
    tools: tuple[Tool, ...] = ()
    endpoint: Endpoint = "messages"
    max_tokens: int | None = None
    """The cap that the caller set. A value that a host or a model profile filled in counts as none."""
    choice_count: int = 1
    """``n``: how many answers are asked for and billed."""
    stream: bool = False
    output_schema: str = ""
    """A structured-output schema as JSON text; it is billed as input."""
    server_tools: tuple[ServerTool, ...] = ()
    has_server_side_context: bool = False
    """The request refers to context that it does not carry (``previous_response_id``, a file id, a container)."""
    params: Mapping[str, Any] = EMPTY
    """What else decides price, capability or cache validity: ``service_tier``, ``speed``, ``inference_geo``,
    ``thinking``, ``reasoning_effort``, ``tool_choice``, ``batch``, ``prompt_cache_key``, ``cache_control`` …"""
    context: CallContext = NO_CONTEXT
    model_pinned: bool = False
    """The caller chose the model for this call explicitly; it is governed, but not routed."""
    connection: str = ""
    """Where the host sends it and as whom, opaque: failures of one connection say nothing of another. Never stored."""
    retry_terms: RetryTerms | None = None
    """The retries that the host's owner or the caller set; ``None``: those of ``[retry]``."""
    prices: Any = None
    """The catalogue of prices that holds for this call alone, as of a router's own deployments; ``None``: the
    pipeline's."""
    settings: Mapping[str, Any] = EMPTY
    """Its parameters by their names at ``endpoint``, all but the prompt itself: what a model must take to take the
    call."""
    bare: bool = False
    """It goes to a gateway: nothing is added that the caller did not write."""
    gateways: frozenset[ModelRef] = frozenset()
    """Models that the host reaches through a gateway, where that depends on the model."""
    endpoint_at: Callable[[ModelRef], Endpoint | None] | None = None
    """The endpoint at which the host calls a model, ``None`` where it finds one that takes the call; absent for hosts
    that call every model at ``endpoint``."""
    alternatives: tuple[ModelRef, ...] = ()
    """The models among which the host chooses by itself, where it does; ``model`` is the one that costs the most."""
    asides: int = 0
    """Messages at its end that go with this request alone: nothing that ends in them is worth a cache."""
    size_only: bool = False
    """It comes from a classic function, which routes by size alone unless another policy was asked for."""
    needs_cap: bool = False
    """Its API takes none without an output cap, and nobody has written one: ours is sent, in every mode."""

    contents = _Contents()
    """What its messages and tools are made of, in numbers: counted in one walk, and once."""

    def _replace(self, **changes: Any) -> CallRequest:
        """The same with other fields, as of a named tuple."""
        return replace(self, **changes)

    @property
    def has_odd_cap(self) -> bool:
        """Whether the caller's output cap is no count: it is sent as it is, and the provider says what is wrong."""
        settings = self.settings
        return (
            self.max_tokens is None
            and bool(settings)
            and any(settings.get(name) is not None for name in OUTPUT_CAP_FIELDS)
        )

    def is_bare(self, target: ModelRef) -> bool:
        """Whether a gateway gets it at ``target``, so that nothing is added."""
        return self.bare or target in self.gateways


def as_written(
    provider: str, model: str, messages: Sequence[Message], tools: tuple[Tool, ...], endpoint: Endpoint,
    max_tokens: int | None, choice_count: int, output_schema: str, server_tools: tuple[ServerTool, ...],
    params: Mapping[str, Any], settings: Mapping[str, Any], *, stream: bool, stored: bool,
) -> CallRequest:  # fmt: skip
    """A request as it stands in a body: what only hosts and applications know of a call is not said yet."""
    return CallRequest(
        provider, model, messages, tools, endpoint, max_tokens, choice_count, stream, output_schema, server_tools,
        stored, params or EMPTY, settings=settings or EMPTY,
    )  # fmt: skip


class ModelRef(NamedTuple):
    """A model at its provider."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What is asked of the model beside the call: of an arm (``capabilities.arms``); otherwise nothing."""
        return EMPTY

    @property
    def plain(self) -> ModelRef:
        """The model alone. Prices, limits, caches, breakers and deployments are a model's, whatever is asked of it."""
        return self


Section = Literal["tools", "system", "messages"]
"""The parts of a prompt, in the order in which providers hash it."""


class BlockRef(Struct, frozen=True, gc=False):
    """The address of a block.

    In ``tools`` the index in the caller's list; else the message's index among those of its section (the system
    messages at the start, or all that follow) and the block's index in it.
    """

    section: Section
    message: int
    block: int


class CacheBreakpoint(NamedTuple):
    """A place where a cached prefix is to end, and how long it is to live: ``5m``, ``1h``, ``30m``."""

    position: BlockRef
    ttl: str


@dataclass(frozen=True, slots=True)
class CacheDirectives:
    """The part of a cache plan that is sent: breakpoints, and fields of the request."""

    marks: tuple[CacheBreakpoint, ...] = ()
    cache_key: str | None = None
    """OpenAI's ``prompt_cache_key``."""
    retention: str | None = None
    """OpenAI's ``prompt_cache_retention``."""
    explicit: bool = False
    """Switch off the breakpoint that OpenAI places by itself, and bills, from GPT-5.6 on."""


class Attempt(Struct, frozen=True, gc=False):
    """One request that is about to leave. ``send`` renders it on copies and sends exactly this."""

    call_id: str
    number: int
    """1 for the first attempt of the call."""
    target: ModelRef
    max_tokens: int | None
    """The output cap to send: the one that was reserved. ``None``: send the request's own (observe mode)."""
    cache_plan: CacheDirectives | None
    """How to mark it for the target's prompt cache; ``None``: not at all."""
    timeout_s: float | None
    """Seconds that the configuration lets a request take; ``None``: as long as the host's own settings do."""
    choice_count: int = 1
    """How many answers are asked for and billed."""
    cut_after_s: float | None = None
    """Seconds until the deadline, where the configuration asks that attempts be cut there; ``None``: it does not."""
    changes: Mapping[str, Any] = EMPTY
    """Fields of the caller's body that are written otherwise for this target; ``None`` leaves one out."""
    bare: bool = False
    """As ``CallRequest.bare``: no field is added."""
    fields: Mapping[str, Any] = EMPTY
    """Fields that are sent beside those of the caller's body: whose call it is, in the provider's own words."""

    def limit_s(self, *, chosen: bool) -> float | None:
        """The most seconds that the request may take; ``None``: as long as its own timeout says.

        Args:
            chosen: The caller chose a timeout for this very call, which no general one shortens.
        """
        limits = [self.cut_after_s] if chosen else [self.cut_after_s, self.timeout_s]
        return min((limit for limit in limits if limit is not None), default=None)


class AnswerContent(NamedTuple):
    """The content of an answer, read only where a check or learning asks for it."""

    text: str = ""
    tool_calls: tuple[tuple[str, Any], ...] = ()
    """Name and arguments of each client tool that it calls; the arguments parsed, or as the JSON text that came."""
    refused: bool = False
    """The model declined, as the answer itself reports (OpenAI's ``refusal``)."""


class CallResult(NamedTuple):
    """An answer: the host's own object, and what could be read of its usage."""

    response: Any
    reading: UsageReport
    text: str | None = None
    """Its text, for checks that decide on an escalation; ``None`` where the host does not provide it."""
    read_content: Callable[[Any], AnswerContent] | None = None
    """Lazily extracts text and tool calls from ``response``; ``None`` if the host cannot."""

    @property
    def content(self) -> AnswerContent | None:
        """Its text and tool calls; ``None`` where the host cannot extract them."""
        if self.read_content is not None:
            try:
                return self.read_content(self.response)
            except Exception:  # noqa: BLE001 - a host's own object, of whatever shape: its caller gets it all the same
                return None
        return None if self.text is None else AnswerContent(self.text)


class CallStream(Protocol):
    """A stream that a host opened. Chunks are the host's own objects and are passed on untouched."""

    def __iter__(self) -> Iterator[Any]:
        """The chunks, for a synchronous caller."""
        ...

    def __aiter__(self) -> AsyncIterator[Any]:
        """The chunks, for an asynchronous caller."""
        ...

    def reading(self) -> UsageReport:
        """What the chunks seen so far say of the usage; ``complete`` is true once the provider closed the answer."""
        ...

    def close(self) -> None:
        """Release the connection; safe to call twice."""
        ...

    async def aclose(self) -> None:
        """Release the connection; safe to call twice."""
        ...


class InputCounter(Protocol):
    """Asks the provider, through the host's own client, how many input tokens one call has. Free of charge."""

    def account(self, target: ModelRef) -> str:
        """Whose rate limit it draws on: a digest of the key and the address. Never the key itself."""
        ...

    def counts(self, target: ModelRef) -> bool:
        """Whether it can ask for this model."""
        ...

    def prepare(self) -> None:
        """Load what asking needs, once a process; it may take a second."""
        ...

    def count(self, target: ModelRef, timeout_s: float) -> int:
        """The input tokens of the call at ``target``. Raises whatever the client raises."""
        ...

    async def acount(self, target: ModelRef, timeout_s: float) -> int:
        """The same on an event loop."""
        ...
