"""``llm-cost monitoring``: write out the Grafana dashboard and the alert rules for Prometheus."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from llm_cost_middleware.cli.loading import err, out
from llm_cost_middleware.errors import ConfigurationError

_FILES = files("llm_cost_middleware.cli").joinpath("monitoring")


def monitoring(
    folder: Annotated[Path, typer.Argument(help="Where to write them.")] = Path(),
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
) -> None:
    """Write a Grafana dashboard, alert rules for Prometheus, and a configuration that scrapes four processes."""
    texts = {file.name: file.read_text(encoding="utf-8") for file in _FILES.iterdir() if file.is_file()}
    there = [name for name in sorted(texts) if (folder / name).exists()]
    if there and not force:  # somebody may have changed them
        err.print(f"{', '.join(there)}: there already; use --force to overwrite")
        raise typer.Exit(1)
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{folder} is a file; name a folder", key="folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in sorted(texts.items()):
        (folder / name).write_text(text, encoding="utf-8")
        out.print(f"wrote {folder / name}", highlight=False, soft_wrap=True)
    out.print("llm-cost help metrics says how to use them")
