"""Configuration and ledger of a command, found the same way as by the library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.cli import currency
from llm_cost_middleware.config import DEFAULT_FILE, CostConfig, says_anything
from llm_cost_middleware.config.sections import LedgerConfig
from llm_cost_middleware.config.settings import open_ledger as connect
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.lifecycle.attribution import AttributionConfig
from llm_cost_middleware.natural_values import read_ledger_url
from llm_cost_middleware.periods import read_moment
from llm_cost_middleware.system_clock import SystemClock

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help=f"The configuration. Default: LLM_COST_CONFIG, else ./{DEFAULT_FILE}."),
]
LedgerOption = Annotated[
    str | None, typer.Option("--ledger", help="The ledger, such as sqlite:///llm-cost.db, instead of the configured.")
]

SinceOption = Annotated[
    str | None,
    typer.Option(help="From this local time on: yesterday, 7d, 2026-11, 2026-11-26T15:00, monday.", metavar="TIME"),
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_FILE = "sqlite:///"


def clean(text: str) -> str:
    """A text without what a terminal would obey: names of users, teams and sites may hold anything."""
    return (
        text if text.isprintable() else "".join(char if char.isprintable() or char in "\n\t" else " " for char in text)
    )


class PlainConsole(Console):
    """Console that prints what a terminal would obey as blanks, and folds text for terminals alone."""

    def print(self, *objects: Any, **options: Any) -> None:
        """See ``rich``."""
        if not self.is_terminal and all(isinstance(one, str) for one in objects):
            options.setdefault("soft_wrap", True)  # a line of a file, of a mail or of a pipe is not folded
        super().print(*(clean(one) if isinstance(one, str) else one for one in objects), **options)


out = PlainConsole(emoji=False)  # ":x" in the name of a scope is no picture
err = PlainConsole(stderr=True, emoji=False)  # progress and hints: what a command prints on ``out`` can be piped
_read: ContextVar[dict[Path | None, CostConfig] | None] = ContextVar("read", default=None)


def begin() -> None:
    """Begin a command: its configuration is read once, and amounts are dollars until that says otherwise."""
    currency.begin()
    _read.set({})


def end() -> None:
    """End a command: what it has read is read anew by whoever comes next in this process."""
    _read.set(None)


def moment_of(text: str | None, key: str) -> float | None:
    """Return the moment that an option means, in seconds since the Unix epoch; what names no zone is local time.

    Raises:
        ConfigurationError: It has no meaning; the message shows the right form.
    """
    return None if text is None else read_moment(text, key, now=SystemClock().now, zone=None)


def load_config(path: Path | None) -> CostConfig:
    """Return the configuration of a command. Raises ``ConfigurationError`` if there is none."""
    known = _read.get()
    found = None if known is None else known.get(path)
    if found is None:
        found = CostConfig.from_toml(path) if path is not None else CostConfig.find()
        if known is not None:
            known[path] = found
    currency.show_in(found.display_currency)
    return found


def _load_unless_ledger(path: Path | None) -> CostConfig:
    """Return the configuration of a command that could do with a ledger instead; where there is none, say so too."""
    if path is not None or says_anything():
        return load_config(path)
    try:
        return load_config(path)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error} Or name a ledger alone: --ledger URL_OR_FILE.") from None


def attribution(path: Path | None, url: str | None) -> AttributionConfig:
    """Return the rule by which names are written; without a configuration, as they are given."""
    if path is None and url is not None:  # a ledger alone: nothing is known of the calls that it serves
        return AttributionConfig()
    return _load_unless_ledger(path).attribution


@contextmanager
def open_ledger(path: Path | None, url: str | None, *, new: bool = False) -> Iterator[Ledger]:
    """Yield the ledger of a command; with ``new`` it may be created.

    A memory ledger belongs to the process that filled it: the command prints that and ends with exit code 1.
    """
    url = None if url is None else read_ledger_url(url, "--ledger")
    # SQLite creates missing files: without this test a mistyped path would show an empty ledger.
    if url is not None and not new and url.startswith(_FILE) and not Path(url.removeprefix(_FILE)).exists():
        raise ConfigurationError(f"there is no ledger at {url}", key="--ledger")
    with connect(_load_unless_ledger(path).ledger if url is None else LedgerConfig(url)) as ledger:
        if not ledger.blocks:
            err.print(
                f"The configured ledger is {ledger.url}: it lives and ends inside the process that uses it, so there "
                "is nothing to read here. Set url in \\[ledger], for example to sqlite:///llm-cost.db."
            )
            raise typer.Exit(1)
        yield ledger
