"""A configuration that changes under a running process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import fields, replace

from llm_cost_middleware.clock import Clock
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.errors import ConfigurationError

_log = logging.getLogger(__name__)
LOOK_S = 1.0
"""Seconds between two looks at the file; a look is one ``stat``."""


class FileWatch:
    """Notices that the file of a configuration was written. Looks when it is asked, at most once a second.

    Args:
        config: Read from a file, or there is nothing to notice.
        clock: Time.
    """

    def __init__(self, config: CostConfig, clock: Clock) -> None:
        self._file = config.file if config.watch else None
        self._seen, self._clock = config.written_at, clock
        self._next = clock.monotonic() + LOOK_S
        self._missed = 0

    def changed(self) -> bool:
        """Whether it was written since this was asked last."""
        if self._file is None or self._clock.monotonic() < self._next:
            return False
        self._next = self._clock.monotonic() + LOOK_S
        try:
            written = self._file.stat().st_mtime
        except OSError:  # it is being replaced, or is gone
            self._missed += 1
            if self._missed == _GONE:
                _log.warning("%s is gone: what was read of it holds, until it is there again", self._file)
            return False
        self._missed = 0
        if written == self._seen:
            return False
        self._seen = written
        return True


_GONE = 2
"""Looks in a row that find no file, where nobody is replacing it."""


def read_again(config: CostConfig) -> CostConfig:
    """Read the file of a configuration again.

    Raises:
        ConfigurationError: It has none, or that cannot be read.
    """
    if config.file is None:
        raise ConfigurationError("was not read from a file: pass the new one, reload(config)", key="config")
    return CostConfig.from_toml(config.file)


def check_reloadable(old: CostConfig, new: CostConfig) -> None:
    """Check that a running pipeline can go over to another configuration.

    Raises:
        ConfigurationError: It has another ledger, which takes a new pipeline.
    """
    if (key := next(_of_the_ledger(old, new), None)) is not None:
        raise ConfigurationError("cannot change under a running pipeline: make a new one", key=key)


def _of_the_ledger(old: CostConfig, new: CostConfig) -> Iterator[str]:
    """The keys that say which ledger it is, and differ."""
    for name in ("url", "tenant", "durability", "on_expiry", "lease"):
        if getattr(old.ledger, name) != getattr(new.ledger, name):
            yield f"ledger.{name}"


def what_was_taken_up(old: CostConfig, new: CostConfig) -> str:
    """What a running pipeline took up of a changed file, and what of it waits, and for what."""
    as_before = replace(old.routing, tiers=new.routing.tiers)  # which are the tiers, and told as those
    if old.tiers != new.tiers and (old.routing.by_default or new.routing.by_default):  # so is the policy with them
        as_before = replace(as_before, kind=new.routing.kind, accept=new.routing.accept)
    changed = [
        one.name for one in fields(CostConfig) if one.compare and getattr(old, one.name) != getattr(new, one.name)
    ]
    if as_before == new.routing:
        changed = [name for name in changed if name != "routing"]
    taken = [name for name in changed if name in _MONEY]
    ledger = [*_of_the_ledger(old, new)]
    remade = [*ledger, *(name for name in changed if name == "metrics")]
    waits = [name for name in changed if name not in (*_MONEY, "metrics", *(["ledger"] if ledger else []))]
    said = [f"{' and '.join(taken)} of {new.file} were taken up" if taken else f"{new.file} changed"]
    said += [f"for {', '.join(waits)} it takes pipeline.reload() or a restart"] if waits else []
    said += [f"for {', '.join(remade)} it takes a restart"] if remade else []
    return "; ".join(said)


_MONEY = ("budgets", "prices")


def with_money_of(old: CostConfig, new: CostConfig) -> CostConfig:
    """The old configuration with the budgets and prices of the new one."""
    return _found_out(replace(old, budgets=new.budgets, prices=new.prices), new, routes=old.routes)


def with_metrics_of(old: CostConfig, new: CostConfig) -> CostConfig:
    """The new configuration with the metrics of the old one."""
    return _found_out(replace(new, metrics=old.metrics), new, routes=new.routes)


def _found_out(mixed: CostConfig, new: CostConfig, *, routes: bool) -> CostConfig:
    """Set what is not given, but found out."""
    for name, value in (("file", new.file), ("written_at", new.written_at), ("routes", routes)):
        object.__setattr__(mixed, name, value)
    return mixed
