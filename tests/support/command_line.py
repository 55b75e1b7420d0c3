"""The command line, for walking."""

from typer.main import get_command

from llm_cost_middleware.cli.app import app
from llm_cost_middleware.cli.commands import COMMANDS


def whole_command_line():
    """The parser of ``llm-cost`` with every command in it."""
    group = get_command(app)
    group.load(*COMMANDS)
    return group


def commands(group=None, path=()):
    """Every command of the parser: the words that call it, and itself."""
    group = whole_command_line() if group is None else group
    for name, command in group.commands.items():
        if hasattr(command, "commands"):  # not ``click.Group``: typer brings a copy of click
            if command.invoke_without_command:
                yield (*path, name), command
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command
