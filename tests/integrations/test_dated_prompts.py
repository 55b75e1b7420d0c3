"""Prompts that are new each time beside traffic whose savings could pay for writing them."""

from __future__ import annotations

from typing import Any

import pytest
from planted_waste import SONNET, SYSTEM, TOOLS, House, house

SECTIONS: dict[str, Any] = {
    "system": lambda date: {"system": date + SYSTEM},
    "tools": lambda date: {"tools": [{**TOOLS[0], "description": date + TOOLS[0]["description"]}, *TOOLS[1:]]},
    "first message": lambda date: {"messages": [{"role": "user", "content": date + SYSTEM}]},
}


@pytest.mark.parametrize("section", SECTIONS)
def test_a_date_at_the_head_stops_being_written_whatever_other_traffic_saves(section: str) -> None:
    # Six writes, and those of the minute that it takes to see that none of them comes back.
    with house() as found:
        assert sum(_written(found, section, count=25, gap_s=20)) <= 6 + 60 / 20 + 1


def test_dated_prompts_in_quick_succession_are_written_for_a_minute_at_most() -> None:
    """Until then they look like conversations that begin together, which all come back."""
    with house() as found:
        written = _written(found, "system", count=90, gap_s=1)
    assert not any(written[6 + 60 + 1 :])


def _written(found: House, section: str, *, count: int, gap_s: float) -> list[bool]:
    """Whether each of the dated prompts was written."""
    pipeline = found.pipeline()
    client = found.claude(pipeline)
    for number in range(30):  # saves by every call but the first
        found.clock.advance(5)
        client.messages.create(
            model=SONNET, max_tokens=50, system="Kept. " + SYSTEM,
            messages=[{"role": "user", "content": f"{number}?"}],
        )  # fmt: skip
    before = len(found.sim.bill.lines)
    for number in range(count):
        found.clock.advance(gap_s)
        dated = SECTIONS[section](f"It is {number:04} seconds past nine. ")
        asked = {"messages": [{"role": "user", "content": f"Question {number}"}], **dated}
        client.messages.create(model=SONNET, max_tokens=50, **asked)
    lines = found.sim.bill.lines
    assert sum(line.tokens.read > 0 for line in lines[:before]) >= 25
    return [line.tokens.write > 0 or line.tokens.write_1h > 0 for line in lines[before:]]
