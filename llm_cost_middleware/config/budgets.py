"""The budgets of a configuration: read, and put in force in a ledger."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from llm_cost_middleware.budget.ledger import Ledger, keeps_register
from llm_cost_middleware.budget.model import Budget, read_budget
from llm_cost_middleware.budget.rules import Decision
from llm_cost_middleware.errors import ConfigurationError

if TYPE_CHECKING:
    from llm_cost_middleware.config import CostConfig

_log = logging.getLogger(__name__)


class Unsaid(tuple[Budget, ...]):
    """No budgets, because the configuration says nothing of them; an empty list says that there are none."""

    __slots__ = ()


UNSAID = Unsaid()


def read_budgets(value: object) -> tuple[Budget, ...]:
    """Read ``[[budgets]]``. Raises ``ConfigurationError``."""
    if isinstance(value, Unsaid):
        return value
    if value is None:
        return ()
    if isinstance(value, Budget):
        return (value,)
    if isinstance(value, Mapping | str | bytes) or not isinstance(value, Iterable):
        form = "must be a list of budgets, such as [{'scope': 'global', 'limit': 25, 'window': 'month'}]"
        raise ConfigurationError(f"{form}, not {type(value).__name__}", key="budgets")
    budgets = tuple(_read_budget(item, f"budgets[{index}]") for index, item in enumerate(value))
    return check_once(budgets)


def check_once(budgets: tuple[Budget, ...]) -> tuple[Budget, ...]:
    """Return budgets of which none has the scope and the window of another. Raises ``ConfigurationError``."""
    keys = [budget.key for budget in budgets]
    twice = next((key for index, key in enumerate(keys) if key in keys[:index]), None)
    if twice is not None:
        raise ConfigurationError(f"two budgets for scope {twice[0]!r} and window {twice[1]!r}", key="budgets")
    return budgets


def _read_budget(value: object, key: str) -> Budget:
    try:
        return read_budget(value)
    except ConfigurationError as error:
        raise error.within(key) from None


def put_budgets_in_force(
    ledger: Ledger, config: CostConfig, *, written_at: float | None = None
) -> tuple[Decision, ...]:
    """Make the budgets of a configuration those of the ledger, as far as nothing newer stands against them.

    Args:
        ledger: The ledger.
        config: One that says nothing of budgets changes none.
        written_at: When it was written, seconds since the Unix epoch; when its file was, if ``None``.

    Returns:
        What became of it. All but what was merely set is logged as a warning: the file does not tell it.
    """
    options, origin, registered = config.ledger, _origin(config.file), keeps_register(ledger.backend)
    spelling = config.attribution.spelling
    who = options.configuration or origin or ("" if not spelling else json.dumps(spelling))
    if who and registered:  # without a name or a file, services of different rules are told by them
        ledger.learn_names(who, spelling)
    if isinstance(config.budgets, Unsaid):
        return ()
    if not registered:  # of somebody else: what it has is what was set last
        for budget in config.budgets:
            ledger.set_budget(budget)
        return ()
    decisions = ledger.configure_budgets(
        config.budgets, name=options.configuration or None, version=options.budgets_version,
        written_at=config.written_at if written_at is None else written_at, origin=origin,
    )  # fmt: skip
    for decision in decisions:
        if decision.action != "set":
            _log.warning("%s", told(decision))
    return decisions


def _origin(file: Path | None) -> str | None:
    """What tells a file from others: its path on this machine, as a hash, as a ledger is read by many."""
    if file is None:
        return None
    return blake2b(f"{platform.node()} {file.absolute()}".encode(), digest_size=12).hexdigest()


def told(decision: Decision) -> str:
    """A decision as a sentence."""
    what = f"budget {decision.scope} ({decision.window})"
    if decision.action == "superseded":
        return (
            f"the budgets of {decision.source} were not taken: {decision.detail}; give the file a higher "
            "ledger.budgets_version if it is the newer one"
        )
    if decision.action == "kept":
        return (
            f"{what}: the configuration's line does not hold, {decision.detail} was decided since ({decision.source})"
        )
    if decision.action == "beside":
        return f"{what} of {decision.source} holds beside the new ones; `llm-cost budgets remove` ends it"
    if decision.action == "retired":
        return f"{what} is retired: it no longer stands in {decision.source}"
    return f"{what}: {decision.action} {decision.detail}".strip()
