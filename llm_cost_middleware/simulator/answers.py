"""Input (`SimRequest`) and output (`Answer`) of a responder, free of any provider's wire format."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from .catalogue import ProviderName, SimModel
from .tokens import Tokenizer

Stop = Literal["end", "length", "tools", "stop_sequence", "refusal"]


class ToolSpec(NamedTuple):
    """Tool the request offers: its name and the JSON schema of its arguments."""

    name: str
    schema: Mapping[str, Any]


class Turn(NamedTuple):
    """One piece of the conversation: a user's or assistant's text, an assistant's tool call, or a tool's result."""

    kind: Literal["system", "user", "assistant", "call", "result"]
    text: str  # of a call: its name and arguments, as `call_text` writes them


@dataclass(frozen=True, slots=True)
class SimRequest:
    """Validated request, the same for every endpoint.

    `tool_choice` is ``auto``, ``none``, ``any`` or the name of the forced tool. `schema` is the JSON schema that the
    answer must follow, if one was asked for; `json_mode` asks for any JSON object.
    """

    provider: ProviderName
    endpoint: str
    model: str
    requested_model: str
    body: Mapping[str, Any] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    turns: tuple[Turn, ...] = field(repr=False)
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str = "auto"
    parallel_tools: bool = True
    schema: Mapping[str, Any] | None = None
    json_mode: bool = False
    max_tokens: int | None = None
    n: int = 1
    stream: bool = False
    thinking: bool = False
    reasoning_tokens: int = 0
    input_tokens: int = 0
    index: int = 0  # counts the requests of this simulator

    @property
    def last_user_text(self) -> str:
        """Newest user text, empty when there is none."""
        return next((turn.text for turn in reversed(self.turns) if turn.kind == "user"), "")

    @property
    def answers_tools(self) -> bool:
        """True when the conversation ends in a tool's result."""
        return bool(self.turns) and self.turns[-1].kind == "result"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Call that the simulated model makes; `id` is made up when empty."""

    name: str
    arguments: Mapping[str, Any]
    id: str = ""

    def json(self) -> str:
        """Return the arguments as the provider writes them."""
        return json.dumps(self.arguments, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer of the simulated model.

    `output_tokens` overrides the count of the tokenizer rule (for one choice, reasoning included). `stop` is worked
    out from the rest when left empty.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    thinking: str = ""
    stop: Stop | None = None
    output_tokens: int | None = None
    searches: int = 0  # web searches that Claude ran for it


Responder = Callable[[SimRequest], Answer]


def call_text(name: str, arguments: object) -> str:
    """Return a tool call as text, equal for equal arguments whatever their order: how conversations are compared."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            return f"{name} {arguments}"
    return f"{name} {json.dumps(arguments, sort_keys=True)}"


class Measured(NamedTuple):
    """Answer that fits its request, with its tokens; `output` counts one choice."""

    answer: Answer
    output: int
    reasoning: int


def measure(answer: Answer, request: SimRequest, model: SimModel, rule: Tokenizer) -> Measured:
    """Count an answer and cut it where the request's limit or the model's own ends it."""
    limit = min(request.max_tokens, model.max_output) if request.max_tokens is not None else model.max_output
    reasoning = min(rule.text(answer.thinking) + request.reasoning_tokens, limit)
    if answer.output_tokens is not None:
        output = min(answer.output_tokens, limit)
        stop = answer.stop or _stop(answer, cut=answer.output_tokens > limit)
        return Measured(replace(answer, stop=stop), output, min(reasoning, output))
    calls = sum(rule.text(call.name) + rule.text(call.json()) for call in answer.tool_calls)
    text = rule.text(answer.text)
    room = limit - reasoning
    if text + calls <= room:
        output = reasoning + text + calls
        return Measured(
            replace(answer, stop=answer.stop or _stop(answer, cut=False)), min(max(output, 1), limit), reasoning
        )
    kept = answer.text.encode("utf-8", "surrogatepass")[: rule.room(room)].decode("utf-8", "ignore")
    return Measured(replace(answer, text=kept, tool_calls=(), stop="length"), limit, reasoning)


def _stop(answer: Answer, *, cut: bool) -> Stop:
    if cut:
        return "length"
    return "tools" if answer.tool_calls else "end"
