"""Upper bound of a request's cost, from the request alone. Pure.

Input: UTF-8 bytes times the provider's most tokens per byte, plus what the provider adds per message and tool; images
and documents by the providers' published formulas. Content outside the request (a stored conversation, a file behind a
URL) is bounded by the model's context window: a longer request is refused and not billed. Nothing bounds what the
provider's own tools add: such a bound reports ``guaranteed=False``. Output is bounded by the cap that will be sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from msgspec import Struct

from llm_cost_middleware.limits import ModelLimits
from llm_cost_middleware.money import ZERO, NanoUSD, ceil_picousd
from llm_cost_middleware.pricing.rates import REQUEST_FEE, Rates
from llm_cost_middleware.provider import Provider
from llm_cost_middleware.request import CallRequest, Part

_NO_MARKS: frozenset[str] = frozenset()
_MEDIA = ("image", "document", "audio")
REQUEST_OVERHEAD = 64
"""Tokens that a request has before its first message: priming, dates, hidden instructions of reasoning models."""
TOOL_EXPANSION = 2
"""Most tokens of a rendered tool definition per token of its JSON."""
TOOL_OVERHEAD = 16
PROVIDER_TOOL_TOKENS = 1_500
"""Tokens of a tool whose definition only the provider holds (bash, text editor, computer): the largest is 735."""
_CALL_BLOCKS = 2
"""Blocks that a tool call or its result counts as, beside its own: a chat of empty calls is all framing."""
_CITATIONS = 1_000
"""Hidden instructions for citing documents; 460 were measured."""
_PRO_INSTRUCTIONS = 2_048
_PRO_RUNS = 4
"""Runs of an answer with ``reasoning.mode = "pro"``, each up to the cap: three runs and 1,500 hidden tokens were
measured; no limit is documented."""
_TILE = 28
_IMAGE_OVERHEAD = 16
_PAGE_TEXT = 3_000
"""Tokens of text per page of a document (platform.claude.com, PDF support); its image is added."""
_AUDIO_TOKENS_PER_SECOND = 20
_BYTES_PER_AUDIO_TOKEN = 50
"""One second is ten tokens and, at the lowest rate of MP3, a thousand bytes; both with a factor of two."""
MOST_EMBEDDED = 300_000
"""Tokens of all pieces of one embedding request (docstring of the SDK's ``embeddings.create``)."""
_DEFAULT_TOOL_USES = 5
"""Uses of a server tool for which the request sets no limit."""


class Bound(Struct, frozen=True, gc=False):
    """Upper bound of a request's cost, with its parts and assumptions."""

    amount_nanousd: NanoUSD
    input_tokens: int
    """Most input tokens that can be billed."""
    max_tokens: int
    """Output cap that must be sent for the bound to hold."""
    guaranteed: bool
    """``False`` if something outside the request can cost more; ``notes`` name it."""
    notes: tuple[str, ...] = ()
    fixed_picousd: int = 0
    """Part that no output cap changes, in pico-dollars."""
    output_picousd: int = 0
    """Cost per token of the cap, summed over all choices, in pico-dollars."""

    def max_tokens_within(self, available_nanousd: NanoUSD) -> int:
        """Return the largest output cap whose bound still fits; 0 if not even the input does."""
        room = available_nanousd * 1_000 - self.fixed_picousd
        if room <= 0:
            return 0
        return room // self.output_picousd if self.output_picousd else self.max_tokens


class InputSize(Struct, frozen=True, gc=False):
    """Sizes of a request's parts."""

    text_bytes: int
    tool_bytes: int
    blocks: int
    """Messages and content blocks; the provider adds tokens to each."""
    tools: int
    images: tuple[Part, ...]
    documents: tuple[Part, ...]
    audio: tuple[Part, ...]
    marks: frozenset[str]
    """Lifetimes of the caller's cache marks."""


def measure(request: CallRequest) -> InputSize:
    """Return the sizes of a request's parts."""
    counts = request.contents
    text, blocks, schema, params = counts.text_bytes, counts.text_blocks, request.output_schema, request.params
    if not (counts.odd_parts or request.tools or schema or params or request.server_tools):
        return InputSize(text, 0, blocks, 0, (), (), (), _NO_MARKS)
    media: dict[str, list[Part]] = {}
    marks: set[str] = set()
    for part in counts.odd_parts:
        if part.cache_ttl:
            marks.add(part.cache_ttl)
        if part.kind != "text":
            marks.update(part.inner_marks)
            text, blocks = _beyond_text(part, media, text, blocks)
    tools = counts.tool_bytes + _bytes(schema) if schema else counts.tool_bytes
    for tool in request.tools:
        if tool.cache_ttl:
            marks.add(tool.cache_ttl)
    if request.server_tools:
        marks.update(server_tool.cache_ttl for server_tool in request.server_tools if server_tool.cache_ttl)
    control = params.get("cache_control") if params else None
    if control:
        marks.add(str(control.get("ttl") or "5m") if isinstance(control, dict) else "5m")
    images, documents, audio = [tuple(media.get(kind, ())) for kind in _MEDIA] if media else ((), (), ())
    n_tools = len(request.tools) + (1 if schema else 0)
    return InputSize(text, tools, blocks, n_tools, images, documents, audio, frozenset(marks) if marks else _NO_MARKS)


def _beyond_text(part: Part, media: dict[str, list[Part]], text: int, blocks: int) -> tuple[int, int]:
    if part.kind in ("tool_use", "tool_result"):
        blocks += _CALL_BLOCKS
    elif part.kind == "thinking":
        text += int(part.media.get("bytes", 0))  # the signature carries the thinking that is not shown
    elif part.kind in _MEDIA:
        media.setdefault(part.kind, []).append(part)
    for inner in part.nested:
        blocks += 1
        if inner.kind in _MEDIA:
            media.setdefault(inner.kind, []).append(inner)
    return text, blocks


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def bound(  # noqa: C901, PLR0912 - one step for each thing that can be billed
    request: CallRequest,
    provider: Provider,
    rates: Rates,
    *,
    max_tokens: int | None,
    limits: ModelLimits,
    server_tool_allowance: NanoUSD = ZERO,
    cache_writes: bool = True,
    planned: frozenset[str] | None = None,
    input_tokens: int | None = None,
    doubt: str = "",
    rates_doubt: str = "",
) -> Bound:
    """Return the upper bound of the cost of ``request``.

    Args:
        request: The request.
        provider: Rules of the provider that will receive it.
        rates: Highest rates the model can be served at: ``Catalogue.upper_bound_rates``.
        max_tokens: Output cap that will be sent; ``None`` bounds by the model's own maximum.
        limits: The model's limits.
        server_tool_allowance: Nano-dollars per use of a provider-side tool.
        cache_writes: A cache plan may still add marks. The caller's own marks count in any case.
        planned: Lifetimes of the marks that a plan adds, where it is known already: no others can be written.
        input_tokens: Input tokens to use in place of the byte bound; cut to the context window.
        doubt: Why ``input_tokens`` guarantees nothing; empty where it is an exact count.
        rates_doubt: Why ``rates`` guarantee nothing; empty where they are the highest.

    Raises:
        PriceNotFoundError: The request carries or asks for audio, and the model has no known price for it.
    """
    size, doubts = measure(request), rates.notes
    notes: tuple[str, ...] = ()
    if input_tokens is None:
        input_tokens = _input(request, provider, size, limits)
    elif doubt:
        doubts = (*doubts, doubt)
    window, server_tools = limits.context_window, request.server_tools
    # Stored context is input that only the provider sees. The window is its one known limit, so it is the bound.
    if input_tokens is None or request.has_server_side_context:
        told: tuple[str, ...] = ("context that the request does not carry: bounded by the context window",)
        notes, doubts = (told, doubts) if window else (notes, doubts + told)
        input_tokens = max(window or 0, input_tokens or 0)
    elif window is not None and input_tokens > window and not server_tools and request.endpoint != "embeddings":
        input_tokens = window  # a longer request is refused, and not billed
    params, runs, audio_out = request.params, request.choice_count, False
    if params:
        hidden, times, audio_out, told = _asked_beside(params)
        input_tokens, runs, doubts = input_tokens + hidden, runs * times, doubts + told
    if max_tokens is None:
        max_tokens = limits.max_output or window
    if max_tokens is None:
        doubts += ("neither a cap nor a maximum of the output is known",)
        max_tokens = limits.default_output
    marks = size.marks
    if planned is not None:
        marks, cache_writes = marks | planned if marks else planned, False
    writes = provider.billable_cache_writes(request, marks, cache_writes)
    if size.audio or audio_out:
        inward, outward = rates.max_picousd(input_tokens, writes, audio=bool(size.audio), audio_output=audio_out)
    else:
        inward, outward = rates.max_picousd(input_tokens, writes)
    fixed, output = input_tokens * inward, outward * runs
    if params and "prediction_bytes" in params:
        # Rejected tokens of a predicted output are billed as output, beyond the cap; a token is at least one byte.
        fixed += int(params["prediction_bytes"]) * output
    if server_tools:
        fixed += _server_tool_uses(request, rates, server_tool_allowance)
        doubts += ("server tools add input that a request cannot bound",)
    if rates.fees:
        fixed += rates.fees.get(REQUEST_FEE, 0)
    if rates_doubt:
        doubts += (rates_doubt,)
    amount = ceil_picousd(fixed + output * max_tokens)
    return Bound(amount, input_tokens, max_tokens, not doubts, notes + doubts, fixed, output)


def _server_tool_uses(request: CallRequest, rates: Rates, allowance: NanoUSD) -> int:
    """Pico-dollars of the most uses of the provider's own tools."""
    total = 0
    for tool in request.server_tools:
        uses = _DEFAULT_TOOL_USES if tool.max_uses is None else tool.max_uses
        # the preview of a tool has a fee of its own, as have some whose call is no search
        fee = rates.fees.get("web_search_preview_call" if "preview" in tool.kind else f"{tool.kind}_call", 0)
        total += uses * (allowance * 1_000 + max(fee, rates.levels[0].web_searches))
    return total


def _asked_beside(params: Mapping[str, Any]) -> tuple[int, int, bool, tuple[str, ...]]:
    """Input tokens that parameters add, runs of each answer, whether it may be audio, and what they leave open."""
    doubts: tuple[str, ...] = ()
    hidden, runs = 0, 1
    if "context_management" in params:
        doubts += ("context management may compact, which is billed apart",)
    reasoning = params.get("reasoning")
    if isinstance(reasoning, dict) and reasoning.get("mode") == "pro":
        doubts += ("pro reasoning runs an answer several times over, and no limit of that is documented",)
        hidden, runs = _PRO_INSTRUCTIONS, _PRO_RUNS
    return hidden, runs, "audio" in (params.get("modalities") or ()), doubts


def _input(request: CallRequest, provider: Provider, size: InputSize, limits: ModelLimits) -> int | None:
    """Return the most tokens the input can have, by its bytes; ``None`` for content of unknown length."""
    if request.endpoint == "embeddings":
        return _embedded(request, provider, limits)
    tokens = REQUEST_OVERHEAD + size.blocks * provider.tokens_per_message
    tokens += ceil(size.text_bytes * provider.tokens_per_byte)
    if size.tools:
        tokens += provider.tokens_for_tools + size.tools * TOOL_OVERHEAD
        most = provider.tokens_per_byte
        tokens += ceil(size.tool_bytes * (most if most > TOOL_EXPANSION else TOOL_EXPANSION))  # noqa: FURB136 - a call of max() costs more
    if params := request.params:
        tokens += int(params.get("provider_tools", 0)) * PROVIDER_TOOL_TOKENS
        tokens += _CITATIONS if params.get("citations") else 0
    if size.images or size.documents or size.audio:
        media = _media(size, limits)
        return None if media is None else tokens + media
    return tokens


def _embedded(request: CallRequest, provider: Provider, limits: ModelLimits) -> int:
    """Return the most tokens of pieces that are embedded apart: each fits the window, or the request is refused."""
    window = limits.context_window or MOST_EMBEDDED
    texts = (part for message in request.messages for part in message.parts)
    sizes = (part.media.get("tokens") or ceil(_bytes(part.text) * provider.tokens_per_byte) for part in texts)
    return min(sum(min(size, window) for size in sizes), MOST_EMBEDDED)


def _image(part: Part, most: int, pixels_per_token: int | None) -> int:
    width, height = part.media.get("width"), part.media.get("height")
    if not pixels_per_token or not width or not height:
        return most
    # The provider pads an image to whole tiles before it counts pixels.
    padded: int = -(-width // _TILE) * -(-height // _TILE) * _TILE * _TILE
    return min(most, padded // pixels_per_token + _IMAGE_OVERHEAD)


def _media(size: InputSize, limits: ModelLimits) -> int | None:
    most = limits.image_tokens
    if most is None and (size.images or any("pages" in part.media for part in size.documents)):
        return None
    tokens = sum(_image(part, most or 0, limits.pixels_per_token) for part in size.images)
    for part in size.documents:
        if "pages" in part.media:
            tokens += int(part.media["pages"]) * (_PAGE_TEXT + (most or 0))
        elif "text" not in part.media:
            return None
    for part in size.audio:
        if "seconds" in part.media:
            tokens += ceil(part.media["seconds"] * _AUDIO_TOKENS_PER_SECOND)
        elif "bytes" in part.media:
            tokens += int(part.media["bytes"]) // _BYTES_PER_AUDIO_TOKEN + REQUEST_OVERHEAD
        else:
            return None
    return tokens
