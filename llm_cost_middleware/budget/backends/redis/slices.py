"""Slices on Redis: the script of a step with another around it, which changes the slices' holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from llm_cost_middleware.budget.scripted.commands import Script
from llm_cost_middleware.budget.scripted.sliced_protocol import SUFFIX, SliceHold


def within_slices(name: str, load: Callable[[str], str]) -> str | None:
    """The text of a script around the step of another; ``None`` for a plain one."""
    if not name.endswith(SUFFIX):
        return None
    return load("sliced").replace("--STEP--", load(name.removesuffix(SUFFIX)))


def sliced_script(
    key: Callable[[str], str], step: Script, slices: list[SliceHold], draw: dict[str, int] | None
) -> Script:
    """See ``SlicedProtocol.within``; ``key`` makes the key of a name."""
    keys, told = list(step.keys), []
    for hold in slices:
        keys += [key(f"r:{hold.id}"), key(f"a:{hold.account}"), *(key(f"a:{name}") for name, _ in hold.postings)]
        told.append({
            "id": hold.id, "limit": hold.limit, "cell": str(hold.cell), "scopes": " ".join(hold.scopes),
            "created": hold.created, "cells": [str(cell) for _, cell in hold.postings],
        })  # fmt: skip
    layout: dict[str, Any] = {"keys": len(step.keys), "args": len(step.args), "slices": told}
    if draw is not None:
        layout["draw"] = draw
    return Script(step.name + SUFFIX, keys, [*step.args, json.dumps(layout)])
