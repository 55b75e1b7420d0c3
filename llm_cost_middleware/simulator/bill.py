"""Bill of the simulated provider: a line per served request, in integer nano-dollars.

Buckets times pico-dollar rates are summed per response and rounded up to the nano-dollar once. A stream is billed for
its input as soon as it begins and for the output produced so far while it runs: one that is cut, or whose client
leaves, stays at what had been produced. A request answered with an error status is not on the bill.

So is a stream whose first event is an error billed for its input. What the providers do is not known: Anthropic's was
recorded (``overloaded_error`` after status 200) without its bill, and neither they nor OpenAI say that it is free.
Microsoft says of its own (learn.microsoft.com, "Plan to manage costs"): "if the service performs processing, you may be
charged even if the status code isn't successful". What may be billed is billed here, so that nobody relies on less.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .catalogue import SimModel

LineOutcome = Literal["open", "complete", "cut", "disconnected", "failed"]

_PICO_PER_NANO = 1_000
TIMES = {
    "us": (11, 10),  # inference_geo of the provider's
    "regional": (11, 10),  # a region or geography of a platform's
    "abroad": (6, 5),  # Azure's zones outside the United States, since GPT-6
    "government": (11, 8),  # Azure Government
    "provisioned": (0, 1),  # paid by the hour
    "govcloud": (6, 5),  # AWS's regions for the government of the United States
}
"""What every token price is multiplied by, as a ratio: 1.1 as a float would be off by a nano-dollar here and there."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Disjoint buckets of one response; `reasoning` is a part of `output`."""

    input: int = 0
    read: int = 0
    write: int = 0
    write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    searches: int = 0

    @property
    def prompt(self) -> int:
        """All input, cached or not."""
        return self.input + self.read + self.write + self.write_1h


@dataclass(frozen=True, slots=True)
class BillLine:
    """One served request.

    `request_id` is the id that the client sees in the answer (``msg_…``, ``chatcmpl-…``, ``resp_…``). `outcome` is
    ``open`` while a stream runs, then ``complete``, ``cut`` (by a scripted fault), ``disconnected`` (the client left)
    or ``failed`` (an error event ended the stream).
    """

    request_id: str
    provider: str
    endpoint: str
    model: str
    tokens: Tokens
    cost_nanousd: int
    tier: str = "standard"
    geo: str = ""
    stream: bool = False
    outcome: LineOutcome = "complete"
    at: float = 0.0


@dataclass(slots=True)
class OpenLine:
    """Line in the making; `Bill` turns it into a `BillLine` whenever it is read."""

    request_id: str
    endpoint: str
    model: SimModel
    tokens: Tokens  # as if the answer were complete
    tier: str
    geo: str
    stream: bool
    at: float
    produced: int = 0  # output tokens so far
    outcome: LineOutcome = "open"

    def line(self) -> BillLine:
        """Return the line as it stands."""
        whole = self.tokens
        output = min(self.produced, whole.output)
        tokens = Tokens(
            whole.input,
            whole.read,
            whole.write,
            whole.write_1h,
            output,
            min(whole.reasoning, output),
            whole.searches,
        )
        return BillLine(
            self.request_id,
            self.model.provider,
            self.endpoint,
            self.model.id,
            tokens,
            cost_nanousd(self.model, tokens, tier=self.tier, geo=self.geo),
            self.tier,
            self.geo,
            self.stream,
            self.outcome,
            self.at,
        )


def cost_nanousd(model: SimModel, tokens: Tokens, *, tier: str = "standard", geo: str = "") -> int:
    """Price one response, rounded up to the nano-dollar once."""
    card = model.card(tier, tokens.prompt)
    pico = (
        tokens.input * card.input
        + tokens.read * card.read
        + tokens.write * card.write
        + tokens.write_1h * card.write_1h
        + tokens.output * card.output
    )
    times, over = TIMES.get(geo, (1, 1))
    return -(-pico * times // (over * _PICO_PER_NANO)) + tokens.searches * model.web_search_nanousd


class Bill:
    """Account: read it from any thread, while requests are being served."""

    def __init__(self) -> None:
        self._entries: list[OpenLine] = []
        self._lock = threading.Lock()

    def open(self, entry: OpenLine) -> OpenLine:
        """Put a request on the bill."""
        with self._lock:
            self._entries.append(entry)
        return entry

    @property
    def lines(self) -> tuple[BillLine, ...]:
        """Every served request in the order in which it was accepted."""
        with self._lock:
            entries = tuple(self._entries)
        return tuple(entry.line() for entry in entries)

    @property
    def total_nanousd(self) -> int:
        """Sum of all lines."""
        return sum(line.cost_nanousd for line in self.lines)

    def by_model(self) -> dict[str, int]:
        """Nano-dollars by model, in the order of first use."""
        return by_model(self.lines)

    def line(self, request_id: str) -> BillLine:
        """Return the line of one answer, by the id that the client saw.

        Raises:
            KeyError: Nothing with that id was billed.
        """
        for line in self.lines:
            if line.request_id == request_id:
                return line
        raise KeyError(request_id)

    def clear(self) -> None:
        """Start an empty bill."""
        with self._lock:
            self._entries.clear()


def by_model(lines: Iterable[BillLine]) -> dict[str, int]:
    """Sum lines by model."""
    totals: dict[str, int] = {}
    for line in lines:
        totals[line.model] = totals.get(line.model, 0) + line.cost_nanousd
    return totals
