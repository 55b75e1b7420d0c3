"""``init_chat_model(configurable_fields=…)``: the model is made in each call, and guarded there.

What LangChain returns is no chat model but a recipe of one: it makes the model from the call's configuration and then
applies what was asked of it meanwhile (tools, structured output). A guarded recipe guards between the two.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import Any

from llm_cost_middleware.fork import ForkSafeLock

_HOME = ("langchain.chat_models.base", "_ConfigurableModel")
_SEAMS = ("_model", "_model_params", "_queued_declarative_operations", "_default_config")
_MODELS = 32
Guard = Callable[[Any], Any]


def is_configurable(model: Any) -> bool:
    """Whether it is such a recipe, of a LangChain whose recipes can be guarded."""
    kinds = ((kind.__module__, kind.__name__) for kind in type(model).__mro__)
    return _HOME in kinds and all(hasattr(model, name) for name in _SEAMS)


def guard_configurable(recipe: Any, guard: Guard) -> Any:
    """A copy of a recipe whose models are guarded.

    Args:
        recipe: What ``init_chat_model`` returned. It is not changed.
        guard: Guards one chat model.
    """
    kind: Any = plain_recipe_class(recipe)
    return _copied(recipe, _guarded_class(kind), llm_cost_models=_Models(guard))


def _copied(recipe: Any, kind: Any, **facts: Any) -> Any:
    # not ``copy``: it asks an object that has nothing yet for attributes, which such a recipe makes a model for
    made = object.__new__(kind)
    vars(made).update(vars(recipe), **facts)
    return made


def plain_recipe_class(recipe: Any) -> type:
    """LangChain's own class of a guarded or a plain recipe."""
    return next(kind for kind in type(recipe).__mro__ if not issubclass(kind, ConfigurableGuard))


class ConfigurableGuard:
    """The part of a guarded recipe that is ours."""

    llm_cost_models: _Models

    def _model(self, config: Any = None) -> Any:
        """As LangChain does, with a guarded model."""
        recipe: Any = self
        params = {**recipe._default_config, **recipe._model_params(config)}  # noqa: SLF001 - the seam

        def make() -> Any:
            plain = _copied(recipe, plain_recipe_class(recipe), _queued_declarative_operations=[])
            return plain._model(config)  # noqa: SLF001 - as above

        model = self.llm_cost_models.get(params, make)
        for name, args, kwargs in recipe._queued_declarative_operations:  # noqa: SLF001
            model = getattr(model, name)(*args, **kwargs)
        return model

    def with_config(self, *args: Any, **kwargs: Any) -> Any:
        """As LangChain does; what it returns is guarded as well."""
        return self._kept(super().with_config(*args, **kwargs))  # type: ignore[misc]  # of the recipe

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)  # type: ignore[misc]  # of the recipe
        if not callable(found) or getattr(found, "__name__", "") != "queue":
            return found

        def queue(*args: Any, **kwargs: Any) -> Any:
            return self._kept(found(*args, **kwargs))

        return queue

    def _kept(self, made: Any) -> Any:
        """A recipe that LangChain made out of this one, with the same guard over the same models."""
        if type(made) is not plain_recipe_class(self):
            return made
        return _copied(made, type(self), llm_cost_models=self.llm_cost_models)


class _Models:
    """Guarded models by what they were made from: they hold connections. Safe between threads."""

    _lock = ForkSafeLock()

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._made: OrderedDict[Any, Any] = OrderedDict()

    def get(self, params: dict[str, Any], make: Callable[[], Any]) -> Any:
        key = tuple(sorted((name, _key(value)) for name, value in params.items()))
        with self._lock:
            if key not in self._made:
                self._made[key] = self._guard(make())
                if len(self._made) > _MODELS:
                    self._made.popitem(last=False)
            return self._made[key]


def _key(value: Any) -> str:
    """Equal for equal settings; an object of the user's, a client say, is itself."""
    return f"{type(value).__qualname__}:{value!r}" if isinstance(value, _PLAIN) else f"{id(value)}"


_PLAIN = (str, int, float, bool, type(None), list, tuple, dict)


@cache
def _guarded_class(kind: Any) -> Any:
    return type(kind)(
        kind.__name__, (ConfigurableGuard, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__}
    )
