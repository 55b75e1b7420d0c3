"""Loopback Anthropic and OpenAI provider with a real prompt cache, scripted faults and a bill of its own.

Real SDK clients use it like the provider. It shares nothing with the rest of the package: its prices, its tokenizer and
its arithmetic are its own, so that a ledger can be compared with its bill::

    with Simulator(responder=fill) as sim:
        claude = anthropic.Anthropic(base_url=sim.anthropic_url, api_key="k")
        gpt = openai.OpenAI(base_url=sim.openai_url, api_key="k")
        sim.script(Fault.status(429, retry_after=1), times=2)
        claude.messages.create(model="claude-haiku-4-5", max_tokens=100, messages=[...])
        gpt.chat.completions.create(model="gpt-5-mini", messages=[...])
        sim.clock.advance(301)                     # five-minute cache entries have lapsed
        assert sim.bill.total_nanousd == sum(line.cost_nanousd for line in sim.bill.lines)
        assert [request.status for request in sim.requests] == [429, 429, 200, 200]

It refuses what the providers refuse, foreign cache marks and unknown parameters included. Tokens are counted by a
stated rule (`tokens`), cached by the published rules (`caching`), priced from `prices/*.toml`. The bill (`bill`) has
every served request: a JSON answer in full even if the client left, a stream for its input and for the output of the
events sent before it was cut, failed or left. Error statuses cost nothing, but for a 408 of the flex tier (`tiers`).

As a pytest fixture: ``llm_cost_middleware.testing.fixtures``.
``python -m llm_cost_middleware.simulator --port 0`` runs it as a process, with ``/__sim__/`` for other languages
(`admin`); `SimulatorProcess` starts and reads one.
"""

try:
    import aiohttp as _aiohttp  # noqa: F401 - looked for first: it shares no code with the package, its errors included
except ModuleNotFoundError as error:
    _needed = "the simulator needs the package aiohttp: pip install aiohttp"
    raise ModuleNotFoundError(_needed, name=error.name) from error

from .answers import Answer, Responder, SimRequest, ToolCall, ToolSpec, Turn
from .anthropic.counting import CountingRules
from .bill import Bill, BillLine, Tokens
from .clock import SimClock
from .faults import Exchange, Fault
from .pace import BatchPace
from .process import SimulatorProcess
from .refusals import Refusal
from .replay import Replay
from .responders import auto, echo, fill
from .simulator import Simulator
from .tiers import TierMarket

__all__ = [
    "Answer",
    "BatchPace",
    "Bill",
    "BillLine",
    "CountingRules",
    "Exchange",
    "Fault",
    "Refusal",
    "Replay",
    "Responder",
    "SimClock",
    "SimRequest",
    "Simulator",
    "SimulatorProcess",
    "TierMarket",
    "Tokens",
    "ToolCall",
    "ToolSpec",
    "Turn",
    "auto",
    "echo",
    "fill",
]
