"""``llm-cost help``: the reference, topic by topic; each is a file in ``topics/``."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.resources import files
from typing import Annotated

import typer

from llm_cost_middleware.cli import methods, tables
from llm_cost_middleware.cli.commands import COMMANDS
from llm_cost_middleware.cli.loading import out
from llm_cost_middleware.errors import ConfigurationError

_TOPICS = files("llm_cost_middleware.cli").joinpath("topics")


def topics() -> dict[str, str]:
    """Return the text of every topic, by name."""
    found = (file for file in _TOPICS.iterdir() if file.name.endswith(".md"))
    texts = {
        file.name.removesuffix(".md"): file.read_text(encoding="utf-8") for file in sorted(found, key=lambda f: f.name)
    }
    return {**texts, "methods": texts["methods"] + methods.tables()}


def show_topic(topic: Annotated[str | None, typer.Argument(help="A topic; all of them without one.")] = None) -> None:
    """Explain a topic: times, dimensions, errors, promises, settings, the proxy, learning and others."""
    known = topics()
    if topic is None:
        for name, text in known.items():
            tables.say(f"{name:12} {text.splitlines()[0].removeprefix('# ')}")
        tables.say("llm-cost help TOPIC; llm-cost COMMAND --help for the options of a command")
        return
    if topic not in known:
        near = get_close_matches(topic, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        if topic in COMMANDS:
            hint = f"; of the command: llm-cost {topic} --help."
        raise ConfigurationError(f"there is no topic {topic!r}{hint} Topics are {', '.join(known)}")
    out.print(known[topic].removeprefix("# "), highlight=False, markup=False, soft_wrap=True)
