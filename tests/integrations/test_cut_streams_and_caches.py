"""What a stream that was left early tells of the provider's cache."""

from __future__ import annotations

from pathlib import Path

from planted_waste import SONNET, SYSTEM, house

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.prompt_cache.trace import KIND, Trace


def test_a_stream_that_is_left_has_told_what_it_wrote(tmp_path: Path) -> None:
    """The first event has the input and the cache: what was written is read, and expected, by the next call."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    with house(url) as found:
        pipeline = found.pipeline()
        client = found.claude(pipeline)
        asked = {
            "model": SONNET, "max_tokens": 50, "system": SYSTEM, "messages": [{"role": "user", "content": "Where?"}],
        }  # fmt: skip
        with client.messages.stream(**asked) as stream:
            for event in stream:
                if event.type == "message_start":
                    break
        found.clock.advance(5)
        client.messages.create(**asked)
        lines = found.sim.bill.lines
        assert lines[0].tokens.write > 0
        assert lines[1].tokens.read > 0
        pipeline.close()
        with Ledger.open(url) as ledger:
            (trace,) = [Trace.decode(each.data, at=each.at) for each in ledger.journal.read(KIND)]
        assert trace.expected_tokens > 0.9 * trace.read_tokens
