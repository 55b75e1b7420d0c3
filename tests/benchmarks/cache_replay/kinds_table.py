"""The table of the kinds of traffic."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kinds import Maker, agents, bursts, dialogue, documents, mixed, questions, recorded, repeats
from traffic import Call


def _table(folder: Path | None) -> dict[str, Maker]:
    kinds: dict[str, Maker] = {}
    if folder is not None and folder.is_dir():
        trace = partial(recorded, folder=folder)
        quick, slow = (2.0, 2.0), (20.0, 20.0)
        kinds |= {
            "airline, in turn": partial(trace, talks=24, between=0, tool_s=2.0, person_s=quick),
            "airline, overlapping": partial(trace, talks=40, between=40.0, tool_s=4.0, person_s=(10.0, 60.0), first=24),
            "airline, twelve only": partial(trace, talks=12, between=0, tool_s=2.0, person_s=slow, first=60),
            "airline, people take 4 min": partial(
                trace, talks=20, between=90.0, tool_s=4.0, person_s=(200.0, 280.0), first=30
            ),
            "airline, people take 7 min": partial(
                trace, talks=20, between=90.0, tool_s=4.0, person_s=(380.0, 460.0), first=50
            ),
            "airline, every turn 7 min": partial(
                trace, talks=20, between=200.0, tool_s=400.0, person_s=(400.0, 440.0), first=70
            ),
            "airline, every turn 70 min": partial(
                trace, talks=12, between=300.0, tool_s=4_200.0, person_s=(4_000.0, 4_400.0)
            ),
            "airline, people take 20 min": partial(
                trace, talks=24, between=300.0, tool_s=4.0, person_s=(900.0, 1_500.0), first=90
            ),
        }
    code = partial(agents, tools="code")
    desk = partial(agents, tools="desk")
    many = (12, 24)
    kinds |= {
        "code agent, one at a time": partial(
            code, talks=8, steps=many, result=(300, 6_000), gap=(1.0, 20.0), between=0
        ),
        "code agent, six at once": partial(
            code, talks=12, steps=many, result=(300, 6_000), gap=(1.0, 20.0), between=30.0
        ),
        "code agent, own system": partial(
            code, talks=12, steps=(5, 15), result=(300, 3_000), gap=(1.0, 10.0), between=20.0, own_system=True
        ),
        "code agent, tests take 6 min": partial(
            code, talks=12, steps=(8, 16), result=(500, 4_000), gap=(330.0, 390.0), between=120.0
        ),
        "code agent, 12 calls a turn": partial(
            code, talks=8, steps=(6, 10), result=(200, 1_500), gap=(2.0, 20.0), between=60.0, parallel=12
        ),
        "code agent, two steps": partial(
            code, talks=70, steps=(2, 2), result=(300, 2_000), gap=(1.0, 5.0), between=40.0
        ),
        "desk agent, short": partial(desk, talks=50, steps=(1, 5), result=(200, 1_500), gap=(2.0, 30.0), between=60.0),
        "desk agent, rare": partial(
            desk, talks=40, steps=(2, 6), result=(200, 1_500), gap=(2.0, 15.0), between=1_200.0
        ),
        "desk agent, a person approves": partial(
            desk, talks=20, steps=(5, 10), result=(200, 2_000), gap=(60.0, 900.0), between=200.0
        ),
        "desk dialogue": partial(
            dialogue, talks=20, turns=(3, 12), gap=45.0, between=60.0, system="shared", tools="desk"
        ),
        "dialogue, 20 s": partial(dialogue, talks=20, turns=(10, 10), gap=20.0, between=97.0),
        "dialogue, 4 min": partial(dialogue, talks=20, turns=(10, 10), gap=240.0, between=97.0),
        "dialogue, 7 min": partial(dialogue, talks=20, turns=(10, 10), gap=420.0, between=131.0),
        "dialogue, 25 min": partial(dialogue, talks=20, turns=(8, 8), gap=1_500.0, between=400.0),
        "dialogue, 70 min": partial(dialogue, talks=20, turns=(8, 8), gap=4_200.0, between=400.0),
        "dialogue, shared system, 7 min": partial(
            dialogue, talks=20, turns=(8, 8), gap=420.0, between=100.0, system="shared"
        ),
        "chat without system": partial(
            dialogue, talks=20, turns=(4, 14), gap=30.0, between=80.0, system="none", question=2_500
        ),
        "one to four turns, own system": partial(dialogue, talks=60, turns=(1, 4), gap=30.0, between=60.0),
        "window of nine messages": partial(
            dialogue, talks=12, turns=(20, 20), gap=20.0, between=90.0, system="shared", window=9
        ),
        "window, short system": partial(
            dialogue, talks=12, turns=(20, 20), gap=20.0, between=90.0, system="shared", size=900, window=9
        ),
        "small users, one system": partial(
            dialogue, talks=150, turns=(1, 3), gap=25.0, between=20.0, system="shared", question=300, answer=300
        ),
        "small users, system too short": partial(
            dialogue,
            talks=150,
            turns=(1, 3),
            gap=25.0,
            between=20.0,
            system="shared",
            size=2_000,
            question=300,
            answer=300,
        ),
        "one question in 15 s": partial(questions, count=200, gap=15.0, system=8_000, question=1_500),
        "one question in 4 min": partial(questions, count=140, gap=240.0, system=8_000, question=1_500),
        "one question in 7 min": partial(questions, count=140, gap=420.0, system=8_000, question=1_500),
        "one question in 70 min": partial(questions, count=120, gap=4_200.0, system=8_000, question=1_500),
        "nothing comes back": partial(questions, count=150, gap=20.0, system=8_000, question=8_000, systems=0),
        "nothing comes back, with tools": partial(
            questions, count=150, gap=20.0, system=6_000, question=6_000, systems=0, tools="code", shuffled="call"
        ),
        "twenty tenants in turn": partial(questions, count=240, gap=9.0, system=9_000, question=1_200, systems=20),
        "sixty tenants in turn": partial(questions, count=360, gap=9.0, system=9_000, question=1_200, systems=60),
        "time first in system": partial(questions, count=150, gap=15.0, system=8_000, question=1_500, stamp="first"),
        "time first, tools before": partial(
            questions, count=150, gap=15.0, system=6_000, question=1_500, stamp="first", tools="desk"
        ),
        "time in a last block": partial(questions, count=150, gap=15.0, system=8_000, question=3_000, stamp="last"),
        "tools shuffled each call": partial(
            questions, count=150, gap=15.0, system=7_000, question=1_000, tools="desk", shuffled="call"
        ),
        "tools shuffled now and then": partial(
            questions, count=150, gap=15.0, system=7_000, question=1_000, tools="desk", shuffled="ten"
        ),
        "examples as turns": partial(questions, count=150, gap=15.0, system=3_000, question=1_200, shots=6),
        "two questions a document": partial(documents, count=60, per=2, gap=30.0, apart=30.0),
        "five questions a document": partial(documents, count=30, per=5, gap=30.0, apart=60.0),
        "fan-out of 30, five at a time": partial(documents, count=8, per=30, gap=6.0, apart=600.0, at_once=5),
        "fan-out of 30, document in system": partial(
            documents, count=8, per=30, gap=6.0, apart=600.0, at_once=5, place="system"
        ),
        "fan-out of 16 all at once": partial(documents, count=10, per=16, gap=6.0, apart=600.0, at_once=16),
        "documents in one string": partial(documents, count=30, per=4, gap=20.0, apart=60.0, place="string"),
        "each prompt once": partial(repeats, prompts=150, times=1, gap=25.0),
        "each prompt twice": partial(repeats, prompts=75, times=2, gap=25.0),
        "each prompt three times, 12 min": partial(repeats, prompts=50, times=3, gap=700.0),
        "each prompt five times": partial(repeats, prompts=40, times=5, gap=25.0),
        "hourly burst of ten": partial(bursts, count=20, width=10, every=3_300.0),
        "daily burst of thirty": partial(bursts, count=6, width=30, every=86_400.0, tools="desk"),
        "burst of three each 10 min": partial(bursts, count=50, width=3, every=600.0),
        "agents and single questions": partial(
            mixed,
            parts=(
                partial(code, talks=6, steps=many, result=(300, 3_000), gap=(1.0, 20.0), between=60.0),
                partial(questions, count=100, gap=12.0, system=7_000, question=7_000, systems=0),
            ),
        ),
    }
    return kinds


def all_kinds(folder: Path | None, *, seed: int = 0) -> dict[str, list[Call]]:
    """Every kind by its name, played from a seed."""
    return {name: make(random.Random(f"{seed}{name}")) for name, make in _table(folder).items()}


def chosen(names: Mapping[str, Any]) -> list[str]:
    """The half of the kinds on which parameters were chosen: every second one of the table."""
    return list(names)[::2]
