"""Locks that survive a fork: in the child, a lock that another thread held would never be released."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock
from typing import Any, Self, overload
from weakref import WeakValueDictionary

# By id, because an owner need not be hashable.
_owners: WeakValueDictionary[tuple[int, str], Any] = WeakValueDictionary()


def after_fork_in_child(action: Callable[[], None]) -> Callable[[], None]:
    """Register a function to run in every forked child, where the system forks; usable as a decorator."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=action)
    return action


class ForkSafeLock:
    """Lock attribute of a class: one ``threading.Lock`` an instance, and a new one in a forked child.

    Declare it in the class body, ``_lock = ForkSafeLock()``, and use ``with self._lock:``. Instances must have a
    ``__dict__`` and take weak references. Do not keep the lock under a second name: that copy is not renewed.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Lock: ...

    def __get__(self, instance: object | None, owner: type) -> Self | Lock:
        if instance is None:
            return self
        # First use only: the instance's own entry hides this descriptor, so later uses cost what a plain lock costs.
        # Registered before it exists, so that no fork falls between the two; ``setdefault`` is atomic.
        _owners[id(instance), self._name] = instance
        return vars(instance).setdefault(self._name, Lock())  # type: ignore[no-any-return]  # put there by this line


class ModuleLock:
    """Fork-safe lock of a module: ``with lock.held:``."""

    held = ForkSafeLock()


@after_fork_in_child
def _renew() -> None:
    for (_, name), owner in list(_owners.items()):
        vars(owner).pop(name, None)
