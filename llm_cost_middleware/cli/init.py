"""``llm-cost init``: write a commented configuration."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from llm_cost_middleware.cli.loading import err, out
from llm_cost_middleware.config import DEFAULT_FILE


def template() -> str:
    """Return the commented configuration: every key with its default."""
    return (files("llm_cost_middleware.config") / "template.toml").read_text(encoding="utf-8")


def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path(DEFAULT_FILE),
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented llm-cost.toml with every key and its default."""
    if path.exists() and not force:  # it may hold somebody's limits and prices
        err.print(f"{path} exists; use --force to overwrite it.")
        raise typer.Exit(1)
    path.write_text(template(), encoding="utf-8")
    out.print(f"wrote {path}")
