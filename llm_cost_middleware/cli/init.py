"""``llm-cost init``: write a commented configuration."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from llm_cost_middleware.cli.loading import err, out
from llm_cost_middleware.config import DEFAULT_FILE
from llm_cost_middleware.config.sections import read_tiers
from llm_cost_middleware.routing.policy import Tier

_MEMORY = 'url = "memory://"                     # sqlite:///llm-cost.db on one machine,'
_FILE = 'url = "sqlite:///llm-cost.db"         # memory:// ends with its process,'


def template() -> str:
    """Return the commented configuration: every key with its default."""
    return _read("template.toml")


def todays() -> str:
    """Return the template with a ledger that outlives its process, and with today's tiers.

    The packaged tiers never change under their users.
    """
    dated = _read("tiers.toml")
    as_of = tomllib.loads(dated)["as_of"]
    start = "[[tiers]]"
    tiers = dated[dated.index(start) :].strip()
    before, _, rest = template().partition(start)
    before = before.replace(_MEMORY, _FILE)
    after = rest[rest.index("[providers.") :]
    tiers = tiers.replace("# from cheap to strong", f"# from cheap to strong, as of {as_of}", 1)
    return f"{before}{tiers}\n\n{after}"


def todays_tiers() -> tuple[Tier, ...]:
    """Return the dated tiers."""
    return read_tiers(tomllib.loads(_read("tiers.toml"))["tiers"])


def _read(name: str) -> str:
    return (files("llm_cost_middleware.config") / name).read_text(encoding="utf-8")


def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path(DEFAULT_FILE),
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented llm-cost.toml: every key with its default, a ledger in a file, and today's models as tiers."""
    if path.exists() and not force:  # it may hold somebody's limits and prices
        err.print(f"{path} exists; use --force to overwrite it.", markup=False)
        raise typer.Exit(1)
    path.write_text(todays(), encoding="utf-8")
    has = "a ledger in llm-cost.db, no budget, and routing over today's models (delete [[tiers]] for none)"
    out.print(f"wrote {path}: {has}", markup=False)
