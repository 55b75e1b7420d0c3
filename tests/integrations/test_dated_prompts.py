"""Prompts that are new each time beside traffic whose savings could pay for writing them."""

from __future__ import annotations

from typing import Any

import pytest
from planted_waste import SONNET, SYSTEM, TOOLS, House, house

SECTIONS: dict[str, Any] = {
    "system": lambda date: {"system": date + SYSTEM},
    "tools": lambda date: {"tools": [{**TOOLS[0], "description": date + TOOLS[0]["description"]}, *TOOLS[1:]]},
}


@pytest.mark.parametrize("section", SECTIONS)
def test_a_date_at_the_head_stops_being_written_whatever_other_traffic_saves(section: str) -> None:
    # Six writes, and those of the minute that it takes to see that none of them comes back.
    with house() as found:
        assert _written(found, section) <= 6 + 60 / 20 + 1


def _written(found: House, section: str) -> int:
    pipeline = found.pipeline()
    client = found.claude(pipeline)
    for number in range(30):  # saves by every call but the first
        found.clock.advance(5)
        client.messages.create(
            model=SONNET, max_tokens=50, system="Kept. " + SYSTEM,
            messages=[{"role": "user", "content": f"{number}?"}],
        )  # fmt: skip
    before = len(found.sim.bill.lines)
    for number in range(25):
        found.clock.advance(20)
        dated = SECTIONS[section](f"It is 09:{number:02} o'clock. ")
        client.messages.create(
            model=SONNET, max_tokens=50, messages=[{"role": "user", "content": f"Question {number}"}], **dated
        )
    lines = found.sim.bill.lines
    assert sum(line.tokens.read > 0 for line in lines[:before]) >= 25
    return sum(line.tokens.write > 0 or line.tokens.write_1h > 0 for line in lines[before:])
