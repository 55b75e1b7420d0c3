"""The command line, for walking."""

from typer.main import get_command

from llm_cost_middleware.cli.app import app
from llm_cost_middleware.cli.commands import COMMANDS


def whole_command_line():
    """The parser of ``llm-cost`` with every command in it."""
    group = get_command(app)
    group.load(*COMMANDS)
    return group
