"""The package's errors as a host's own: caught by the ``except`` clauses that are there, retried by no helper.

Each host that has a class of its own for errors gets one class for each kind of ours, which derives from both. They are
made when they are first needed, so that no host is imported for them, and survive pickling and copying.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from llm_cost_middleware import errors
from llm_cost_middleware.errors import LLMCostError, restore


class HostErrors:
    """The errors of this package in the classes of one host.

    Args:
        home: The module that shows the classes (as ``__getattr__`` does with ``named``) and this object, as ``ERRORS``.
        bases: The host's own classes that an error of the given kind is to be; none leaves that kind as it is. Asked
            when such an error is raised, and once a kind.
    """

    def __init__(self, home: str, bases: Callable[[type[LLMCostError]], tuple[type[Exception], ...]]) -> None:
        self._home, self._bases = home, bases
        self._classes: dict[type[LLMCostError], type[LLMCostError]] = {}

    def class_of(self, kind: type[LLMCostError]) -> type[LLMCostError]:
        """The class of an error of ``kind`` at this host."""
        found = self._classes.get(kind)
        if found is None:
            own = self._bases(kind)
            made = type(kind.__name__, (kind, *own), self._namespace(kind)) if own else kind
            found = self._classes.setdefault(kind, made)  # two threads at once: one class
        return found

    def named(self, name: str) -> type[LLMCostError]:
        """The class of a kind by its name, for ``except`` clauses.

        Raises:
            AttributeError: There is no such kind.
        """
        kind = getattr(errors, name, None)
        if isinstance(kind, type) and issubclass(kind, LLMCostError):
            return self.class_of(kind)
        raise AttributeError(f"module {self._home!r} has no attribute {name!r}")

    def translated(self, error: LLMCostError) -> LLMCostError:
        """``error`` as the host's own kind, with the same facts, text, cause and traceback."""
        kind = _kind_of(error)
        made = self.class_of(kind)
        if isinstance(error, made):
            return error
        twin = restore(made, error.args, error.__dict__)
        twin.__cause__, twin.__context__ = error.__cause__, error.__context__
        twin.__suppress_context__ = error.__suppress_context__
        return twin.with_traceback(error.__traceback__)

    def raised(self, error: LLMCostError) -> NoReturn:
        """Raise ``error`` as the host's own kind."""
        made = self.translated(error)
        if made is error:
            raise error
        raise made from made.__cause__

    def _namespace(self, kind: type[LLMCostError]) -> dict[str, Any]:
        home = self._home

        def reduce(error: LLMCostError) -> tuple[Any, ...]:
            return _restore_at, (home, kind, error.args, error.__dict__)

        return {"__doc__": kind.__doc__, "__module__": home, "__reduce__": reduce}


def _kind_of(error: LLMCostError) -> type[LLMCostError]:
    """The kind of an error that may be another host's."""
    return next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)


def _restore_at(home: str, kind: type[LLMCostError], args: tuple[Any, ...], state: dict[str, Any]) -> LLMCostError:
    """An error of a host that was pickled; of its plain kind where the host is not installed."""
    with suppress(ImportError):
        kind = import_module(home).ERRORS.class_of(kind)
    return restore(kind, args, state)
