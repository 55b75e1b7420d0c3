"""The most that a request can cost, from the request alone.

Pure. The input is bounded by its UTF-8 bytes times what a byte can become at most with that provider, plus what the
provider adds to messages and tools; pictures and documents by the providers' published formulas. What cannot be seen
from the request (a stored conversation, a file behind an address) is bounded by the model's context window, since a
longer request is refused and not billed. What the provider's own tools add is not bounded by anything: then the bound
says so. Output is bounded by the cap that will be sent.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from llm_cost_middleware.money import ZERO, NanoUSD, ceil_picousd
from llm_cost_middleware.pricing.limits import ModelLimits
from llm_cost_middleware.pricing.rates import Rates
from llm_cost_middleware.pricing.tokenizer import count_openai_tokens
from llm_cost_middleware.provider import Provider
from llm_cost_middleware.request import CallRequest, Part

_NO_MARKS: frozenset[str] = frozenset()
_MEDIA = ("image", "document", "audio")
_FRAME = 64
"""Tokens that a request has before its first message: priming, dates, hidden instructions of reasoning models."""
_TOOL_FACTOR = 2
"""A tool's definition is rendered in another form than its JSON: at most twice as long."""
_TOOL_FRAME = 16
_CALL_BLOCKS = 2
"""A tool call or its result is framed like this many blocks more: a chat of empty calls is all framing."""
_HELD_TOOL = 1_500
"""Tokens of a tool whose definition only the provider holds (bash, text editor, computer): the largest is 735."""
_CITATIONS = 1_000
"""Hidden instructions where a document is to be cited; 460 were seen."""
_PRO_INSTRUCTIONS = 2_048
_PRO_RUNS = 4
"""``reasoning.mode = "pro"`` runs the answer several times over, each up to the cap: three runs and 1,500 hidden tokens
were seen; nothing documents a limit."""
_TILE = 28
_PICTURE_FRAME = 16
_PAGE_TEXT = 3_000
"""Tokens of text on one page of a document (platform.claude.com, PDF support), to which its picture is added."""
_AUDIO_TOKENS_PER_SECOND = 20
_BYTES_PER_AUDIO_TOKEN = 50
"""One second is ten tokens and, at the lowest rate of MP3, a thousand bytes; both with a factor of two."""
_USES = 5
"""Uses of a server tool to allow for where the request sets no limit."""


class Bound(NamedTuple):
    """The most a request can cost, and what that rests on."""

    amount_nanousd: NanoUSD
    input_tokens: int
    """The most input it can be billed for."""
    max_tokens: int
    """The output cap that must be sent for the bound to hold."""
    guaranteed: bool
    """``False`` where something that the request does not show can cost more: the notes say what."""
    notes: tuple[str, ...] = ()
    fixed_picousd: int = 0
    """The part that no output cap changes, in pico-dollars."""
    output_picousd: int = 0
    """What one token of the cap costs, over all choices, in pico-dollars."""

    def max_tokens_within(self, available_nanousd: NanoUSD) -> int:
        """The largest output cap whose bound still fits; 0 where not even the input does."""
        room = available_nanousd * 1_000 - self.fixed_picousd
        if room <= 0:
            return 0
        return room // self.output_picousd if self.output_picousd else self.max_tokens


class InputSize(NamedTuple):
    """What there is to read in a request."""

    text_bytes: int
    tool_bytes: int
    blocks: int
    """Messages and content blocks, each of which the provider frames."""
    tools: int
    images: tuple[Part, ...]
    documents: tuple[Part, ...]
    audio: tuple[Part, ...]
    marks: frozenset[str]
    """Lifetimes of the cache marks that the caller set."""


def measure(request: CallRequest) -> InputSize:
    """Read the sizes off a request."""
    text = blocks = 0
    media: dict[str, list[Part]] = {}
    marks: set[str] = set()
    for message in request.messages:
        parts = message.parts
        blocks += len(parts) or 1
        for part in parts:
            body = part.text
            text += len(body) if body.isascii() else len(body.encode("utf-8", "surrogatepass"))
            if part.mark:
                marks.add(part.mark)
            if part.kind != "text":
                text, blocks = _beyond_text(part, media, text, blocks)
    schema = request.output_schema
    tools = _bytes(schema) if schema else 0
    for tool in request.tools:
        tools += _bytes(tool.text)
        if tool.mark:
            marks.add(tool.mark)
    control = request.params.get("cache_control") if request.params else None
    if control:
        marks.add(str(control.get("ttl") or "5m") if isinstance(control, dict) else "5m")
    images, documents, audio = [tuple(media.get(kind, ())) for kind in _MEDIA] if media else ((), (), ())
    n_tools = len(request.tools) + (1 if schema else 0)
    return InputSize(text, tools, blocks, n_tools, images, documents, audio, frozenset(marks) if marks else _NO_MARKS)


def _beyond_text(part: Part, media: dict[str, list[Part]], text: int, blocks: int) -> tuple[int, int]:
    if part.kind in ("tool_use", "tool_result"):
        blocks += _CALL_BLOCKS
    elif part.kind == "thinking":
        text += int(part.detail.get("bytes", 0))  # the signature carries the thinking that is not shown
    elif part.kind in _MEDIA:
        media.setdefault(part.kind, []).append(part)
    for inner in part.inner:
        blocks += 1
        if inner.kind in _MEDIA:
            media.setdefault(inner.kind, []).append(inner)
    return text, blocks


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def bound(  # noqa: C901 - one step for each thing that can be billed
    request: CallRequest,
    provider: Provider,
    rates: Rates,
    *,
    max_tokens: int | None,
    limits: ModelLimits,
    server_tool_allowance: NanoUSD = ZERO,
    cache_writes: bool = True,
    input_tokens: int | None = None,
    exact: bool = True,
) -> Bound:
    """The most that ``request`` can cost.

    Args:
        request: What will be asked.
        provider: The rules of the provider that will be asked.
        rates: The dearest the model can be served at: ``Catalogue.dearest``.
        max_tokens: The output cap that will be sent; ``None`` bounds by the model's own maximum.
        limits: The model's limits.
        server_tool_allowance: Nano-dollars to allow for each use of a provider-side tool.
        cache_writes: A cache plan may still add marks. Marks that the caller set count in any case.
        input_tokens: A count of the input to use in place of the byte bound, never above the context window.
        exact: ``input_tokens`` is a count; ``False`` where it is an estimate, which guarantees nothing.

    Raises:
        PriceNotFoundError: The request carries or asks for audio, and the model has no known price for it.
    """
    size = measure(request)
    doubts: list[str] = list(rates.notes)
    notes: list[str] = []
    if input_tokens is None:
        input_tokens = _input(request, provider, size, limits)
    elif not exact:
        doubts.append("the input is an estimate")
    window = limits.context_window
    if input_tokens is None or request.stored_context:
        (notes if window else doubts).append("context that the request does not carry: bounded by the context window")
        input_tokens = max(window or 0, input_tokens or 0)
    elif window is not None and not request.server_tools:
        input_tokens = min(input_tokens, window)  # a longer request is refused, and not billed
    params = request.params
    if "context_management" in params:
        doubts.append("context management may compact, which is billed apart")
    runs = request.choices
    if params and _is_pro(request):
        doubts.append("pro reasoning runs an answer several times over, and no limit of that is documented")
        input_tokens += _PRO_INSTRUCTIONS
        runs *= _PRO_RUNS
    if max_tokens is None:
        max_tokens = limits.max_output or window
    if max_tokens is None:
        doubts.append("neither a cap nor a maximum of the output is known")
        max_tokens = limits.default_output
    speaks = bool(params) and "audio" in (params.get("modalities") or ())
    output = rates.output_max_picousd(input_tokens, audio=speaks) * runs
    writes = _writes(request, provider, size, planned=cache_writes)
    fixed = input_tokens * rates.input_max_picousd(input_tokens, writes=writes, audio=bool(size.audio))
    if "prediction_bytes" in params:
        fixed += int(params["prediction_bytes"]) * output
    if request.server_tools:
        uses = sum(_USES if tool.max_uses is None else tool.max_uses for tool in request.server_tools)
        fixed += uses * (server_tool_allowance * 1_000 + rates.levels[0].web_searches)
        doubts.append("server tools add input that a request cannot bound")
    amount = ceil_picousd(fixed + output * max_tokens)
    return Bound(amount, input_tokens, max_tokens, not doubts, (*notes, *doubts), fixed, output)


def _writes(request: CallRequest, provider: Provider, size: InputSize, *, planned: bool) -> tuple[str, ...]:
    """The lifetimes of cache writes that the request can be billed for."""
    if provider.name == "anthropic":
        # Every write is asked for by a mark, and marks may be of either lifetime.
        if planned or request.server_tools:
            return ("5m", "1h")
        return tuple(ttl for ttl in ("5m", "1h") if ttl in size.marks)
    # Automatic from GPT-5.6 on; before, a write costs what plain input costs.
    return ("30m", "12h") if request.params.get("prompt_cache_options") else ("30m",)


def _is_pro(request: CallRequest) -> bool:
    reasoning = request.params.get("reasoning")
    return isinstance(reasoning, dict) and reasoning.get("mode") == "pro"


def _input(request: CallRequest, provider: Provider, size: InputSize, limits: ModelLimits) -> int | None:
    """The most tokens the input can be, by its bytes; ``None`` where it has content of unknown length."""
    tokens = _FRAME + ceil(size.text_bytes * provider.tokens_per_byte) + size.blocks * provider.tokens_per_message
    if size.tools:
        tokens += provider.tokens_for_tools + size.tools * _TOOL_FRAME
        tokens += ceil(size.tool_bytes * max(provider.tokens_per_byte, _TOOL_FACTOR))
    if request.params:
        tokens += int(request.params.get("provider_tools", 0)) * _HELD_TOOL
        tokens += _CITATIONS if request.params.get("citations") else 0
    if size.images or size.documents or size.audio:
        media = _media(size, limits)
        return None if media is None else tokens + media
    return tokens


def _picture(part: Part, most: int, pixels_per_token: int | None) -> int:
    width, height = part.detail.get("width"), part.detail.get("height")
    if not pixels_per_token or not width or not height:
        return most
    padded: int = -(-width // _TILE) * -(-height // _TILE) * _TILE * _TILE
    return min(most, padded // pixels_per_token + _PICTURE_FRAME)


def _media(size: InputSize, limits: ModelLimits) -> int | None:
    picture = limits.image_tokens
    if picture is None and (size.images or any("pages" in part.detail for part in size.documents)):
        return None
    tokens = sum(_picture(part, picture or 0, limits.pixels_per_token) for part in size.images)
    for part in size.documents:
        if "pages" in part.detail:
            tokens += int(part.detail["pages"]) * (_PAGE_TEXT + (picture or 0))
        elif "text" not in part.detail:
            return None
    for part in size.audio:
        if "seconds" in part.detail:
            tokens += ceil(part.detail["seconds"] * _AUDIO_TOKENS_PER_SECOND)
        elif "bytes" in part.detail:
            tokens += int(part.detail["bytes"]) // _BYTES_PER_AUDIO_TOKEN + _FRAME
        else:
            return None
    return tokens


__all__ = ["Bound", "InputSize", "bound", "count_openai_tokens", "measure"]
