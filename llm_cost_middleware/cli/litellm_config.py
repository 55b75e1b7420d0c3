"""``llm-cost litellm-config``: export of the configuration as a LiteLLM proxy's ``config.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm_cost_middleware.cli.loading import load_config
from llm_cost_middleware.integrations.litellm.config import proxy_config


def litellm_config(
    path: Annotated[Path | None, typer.Argument(help="The configuration. Default: as for every command.")] = None,
    *,
    routed: Annotated[str, typer.Option("--routed", help="The model name that is routed.")] = "smart",
) -> None:
    """Write the config.yaml of a LiteLLM proxy that routes, holds budgets and books, to standard output."""
    # echo, not ``out``: YAML must reach a file without wrapping or colours.
    typer.echo(proxy_config(load_config(path), routed=routed), nl=False)
