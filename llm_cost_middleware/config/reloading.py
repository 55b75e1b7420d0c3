"""A configuration that changes under a running process."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from llm_cost_middleware.clock import Clock
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.errors import ConfigurationError

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

    def changed(self) -> bool:
        """Whether it was written since this was asked last."""
        if self._file is None or self._clock.monotonic() < self._next:
            return False
        self._next = self._clock.monotonic() + LOOK_S
        with suppress(OSError):  # not there: it is being replaced, or is gone; what was read of it holds
            written = self._file.stat().st_mtime
            if written != self._seen:
                self._seen = written
                return True
        return False


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
    for name in ("url", "tenant", "durability", "on_expiry", "lease"):
        if getattr(old.ledger, name) != getattr(new.ledger, name):
            raise ConfigurationError("cannot change under a running pipeline: make a new one", key=f"ledger.{name}")


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
