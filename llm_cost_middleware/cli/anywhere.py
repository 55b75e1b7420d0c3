"""``--ledger`` and ``--config`` where people type them: before a command, behind it, behind its subcommand."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

_OPTIONS = ("--ledger", "--config", "-c")


def split_off(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the options of the ledger and of the configuration, and all other arguments in their order."""
    options: list[str] = []
    others: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word == "--":  # what follows is no option
            others += [word, *rest]
        elif word in _OPTIONS:
            options += [word, *([value] if (value := next(rest, None)) is not None else [])]
        elif word.startswith(("--ledger=", "--config=")):
            options.append(word)
        else:
            others.append(word)
    return options, others


class OptionsAnywhere(TyperGroup):
    """Group whose own options may stand behind its subcommands too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See ``click.Command``: the group's own options first."""
        options, others = split_off(args)
        return super().parse_args(ctx, [*options, *others])
