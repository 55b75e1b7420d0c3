"""The packaged overlay is append-only: a block that was published is never edited, because past calls rest on it."""

from __future__ import annotations

import hashlib
import json
import tomllib
from importlib.resources import files

from llm_cost_middleware.pricing.overlay import packaged

PINNED = [
    ("anthropic/claude-sonnet-5-5", "a51125c10202"),
    ("anthropic/claude-sonnet-4-0", "dd62207761f7"),
    ("anthropic/claude-mythos-5", "77061526017b"),
    ("anthropic/claude-mythos-5-1", "003db2b3448e"),
    ("anthropic/claude-opus-4-6", "e1bf855f55dc"),
    ("openai/o3", "0053120639d8"),
    ("openai/gpt-4o-audio-preview", "d4fa985a951c"),
    ("openai/gpt-4o-mini-audio-preview", "93b2131b2d04"),
    ("openai/gpt-6-astra", "2cba75da6ee3"),
    ("openai/gpt-6.1-sol", "624a9369c3af"),
    ("openai/gpt-4o-search-preview", "f6830b0db1c8"),
    ("openai/gpt-4o-mini-search-preview", "d56e7b36dd4e"),
    ("openai/gpt-5-search-api", "3dbbc23ef132"),
    ("openai/gpt-4o", "da50fd30af59"),
    ("openai/gpt-4o-mini", "b6301dc7b650"),
    ("openai/gpt-4.1", "d6c63016082e"),
    ("openai/gpt-4.1-mini", "251072aff600"),
]


def _published():
    return tomllib.loads(files("llm_cost_middleware.pricing").joinpath("overlay.toml").read_text())["price"]


def _digest(block):
    told = {key: value for key, value in block.items() if key not in ("source", "checked")}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:12]


def test_no_published_block_was_changed():
    """A new price is a new block; a wrong one is corrected here and there together, with its evidence in ``source``."""
    published = [(block["model"], _digest(block)) for block in _published()]
    assert published == PINNED, "pin a new block here, so that a later edit of it shows"


def test_every_block_has_a_source_and_the_day_it_was_checked():
    for block in _published():
        assert block["source"], block["model"]
        assert block["checked"], block["model"]


def test_the_digest_is_that_of_the_file():
    raw = files("llm_cost_middleware.pricing").joinpath("overlay.toml").read_bytes()
    assert packaged().digest == hashlib.sha256(raw).hexdigest()[:8]
