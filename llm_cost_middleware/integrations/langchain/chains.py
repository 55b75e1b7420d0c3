"""``instrument``: a copy of a chain in which every chat model that can be reached is guarded.

A runnable holds others in its fields, in lists and mappings, or in the closure of a function. What leads to a model is
copied, everything else is shared; the original chain is not touched.
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from functools import partial
from inspect import isfunction
from types import CellType, FunctionType
from typing import Any, Literal, NamedTuple, TypeVar, overload

from langchain_core.language_models import BaseChatModel, BaseLanguageModel
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda
from langchain_core.runnables.configurable import RunnableConfigurableAlternatives
from langchain_core.runnables.retry import RunnableRetry

from llm_cost_middleware.errors import NoModelFoundError
from llm_cost_middleware.integrations.langchain.configurable import is_configurable
from llm_cost_middleware.integrations.langchain.errors import except_refusals
from llm_cost_middleware.integrations.langchain.guarded import guard, is_guarded
from llm_cost_middleware.integrations.langchain.names import DECISIONS
from llm_cost_middleware.integrations.langchain.of_platforms import is_of_platform
from llm_cost_middleware.integrations.langchain.targets import provider_of
from llm_cost_middleware.pipeline import CostPipeline, PipelineSource

Chain = TypeVar("Chain", bound=Runnable[Any, Any])
_NOT_PARTS = frozenset({"kwargs", "config", "config_factories", "metadata", "custom_input_type", "custom_output_type"})
_ADVICE = (
    "guard() the model where it is made, or pass the chain a CostCallbackHandler, which vetoes and books every call; "
    "for an agent use CostMiddleware or give create_agent a guarded model"
)


class FoundModel(NamedTuple):
    """Position of a model in a chain, or of what may hide one."""

    path: str
    """Path from the chain, such as ``.last.bound`` or ``.func[model]``."""
    what: str
    """Class and name of the model, or of what hides one."""
    guarded: bool
    note: str = ""


@overload
def instrument(
    chain: Chain, pipeline: PipelineSource | None = None, *, pinned: bool = False, explain: Literal[False] = False
) -> Chain: ...


@overload
def instrument(
    chain: Chain, pipeline: PipelineSource | None = None, *, pinned: bool = False, explain: Literal[True]
) -> tuple[Chain, tuple[FoundModel, ...]]: ...


def instrument(
    chain: Chain, pipeline: PipelineSource | None = None, *, pinned: bool = False, explain: bool = False
) -> Chain | tuple[Chain, tuple[FoundModel, ...]]:
    """A copy of ``chain`` with every reachable chat model guarded.

    Reached: sequences, bindings, parallels, branches, fallbacks, retries, maps, configurable fields and alternatives,
    message histories, and models in closures and partial arguments of a ``RunnableLambda``. Not reached, because it
    would not be sound: models that a function finds in a global or in its own object, compiled graphs, and models made
    anew in each call. A guarded model is left as it is. Retries of the chain leave refused budgets alone.

    Args:
        chain: Any runnable, a model included. It is not changed.
        pipeline: A pipeline, a configuration for a new one, or ``None`` for the default.
        pinned: As of ``guard``.
        explain: Also return what was found, and where.

    Raises:
        NoModelFoundError: There is no model that can be reached; the message says where one may hide, and what to do.
        ConfigurationError, UnsupportedRequestError: As ``guard`` does.
    """
    search = _Search(CostPipeline.resolve(pipeline), pinned=pinned)
    made = search.rewrite(chain, "")
    if not any(found.guarded for found in search.found):
        hidden = "; ".join(f"{found.path or 'chain'}: {found.what} ({found.note})" for found in search.found)
        raise NoModelFoundError(
            f"no chat model can be reached in {type(chain).__name__}: {hidden or 'it holds none'}. {_ADVICE}"
        )
    return (made, tuple(search.found)) if explain else made


class _Search:
    """One walk over a chain. An object that is met twice is replaced by the same copy; without a pipeline, by none."""

    def __init__(self, pipeline: CostPipeline | None, *, pinned: bool = False) -> None:
        self._pipeline, self._pinned = pipeline, pinned
        self.found: list[FoundModel] = []
        self._seen: dict[int, tuple[Any, Any]] = {}

    def rewrite(self, thing: Any, path: str) -> Any:
        """``thing``, or a copy of it where something in it was replaced."""
        if id(thing) in self._seen:
            return self._seen[id(thing)][1]
        self._seen[id(thing)] = (thing, thing)  # a cycle ends here; the pair keeps the id taken
        made = self._rewrite(thing, path)
        self._seen[id(thing)] = (thing, made)
        return made

    def _rewrite(self, thing: Any, path: str) -> Any:
        if isinstance(thing, BaseChatModel) or is_configurable(thing):
            return self._guard(thing, path)
        if isinstance(thing, BaseLanguageModel):
            self._hidden(thing, path, "completions of the old kind are not governed")
            return thing
        if isinstance(thing, Runnable):
            if any(kind.__module__ == "langchain_core.decisions.base" for kind in type(thing).__mro__):
                self._hidden(thing, path, DECISIONS)  # not every LangChain has this class
                return thing
            return self._runnable(thing, path)
        if isinstance(thing, Mapping):
            new = {key: self.rewrite(value, f"{path}[{key!r}]") for key, value in thing.items()}
            return new if any(new[key] is not thing[key] for key in new) else thing
        if isinstance(thing, list | tuple):
            items = [self.rewrite(value, f"{path}[{at}]") for at, value in enumerate(thing)]
            if all(new is old for new, old in zip(items, thing, strict=True)):
                return thing
            return type(thing)(items) if type(thing) in (list, tuple) else type(thing)(*items)
        return thing

    def _guard(self, model: BaseChatModel, path: str) -> BaseChatModel:
        what = f"{type(model).__name__}({getattr(model, 'model_name', None) or getattr(model, 'model', '')})"
        if is_guarded(model):
            self.found.append(FoundModel(path, what, guarded=True, note="was guarded before"))
            return model
        known = is_configurable(model) or provider_of(model) or is_of_platform(model, self._pipeline)
        note = "" if known else "metered only"
        self.found.append(FoundModel(path, what, guarded=True, note=note))
        return model if self._pipeline is None else guard(model, self._pipeline, pinned=self._pinned)

    def _runnable(self, thing: Any, path: str) -> Any:
        if isinstance(thing, RunnableLambda | RunnableGenerator):
            slots = [name for name in ("func", "afunc", "_transform", "_atransform") if name in vars(thing)]
            return self._copied(thing, {name: self._function(vars(thing)[name], f"{path}.{name}") for name in slots})
        if type(thing).__module__.startswith("langgraph."):
            self._hidden(thing, path, "its models are out of reach")
            return thing
        if isinstance(thing, RunnableConfigurableAlternatives):
            lazy = {key: self._maker(key, value, path) for key, value in thing.alternatives.items()}
            return self._copied(
                thing, {"default": self.rewrite(thing.default, f"{path}.default"), "alternatives": lazy}
            )
        before = len(self.found)
        parts = {name: value for name, value in vars(thing).items() if name not in _NOT_PARTS}
        made = self._copied(thing, {name: self.rewrite(value, f"{path}.{name}") for name, value in parts.items()})
        if isinstance(made, RunnableRetry) and any(found.guarded for found in self.found[before:]):
            return self._copied(made, {"retry_exception_types": except_refusals(made.retry_exception_types)})
        return made

    def _copied(self, thing: Any, fields: Mapping[str, Any]) -> Any:
        changed = {name: value for name, value in fields.items() if value is not getattr(thing, name)}
        if not changed:
            return thing
        made = copy(thing)
        for name, value in changed.items():
            made.__dict__[name] = value  # past pydantic's validation: the parts are of the kinds they were
        return made

    def _maker(self, key: str, value: Any, path: str) -> Any:
        """An alternative is a runnable, or a function that makes one when it is asked for."""
        if isinstance(value, Runnable) or not callable(value):
            return self.rewrite(value, f"{path}.alternatives[{key!r}]")
        return partial(self._made, value, path)

    def _made(self, make: Callable[[], Any], path: str) -> Any:
        return self.rewrite(make(), path)

    # --- functions -----------------------------------------------------------------------------------------------

    def _function(self, function: Any, path: str) -> Any:
        if isinstance(function, partial):
            new = partial(
                self._function(function.func, path),
                *(self.rewrite(value, f"{path}({at})") for at, value in enumerate(function.args)),
                **{name: self.rewrite(value, f"{path}({name})") for name, value in function.keywords.items()},
            )
            same = (new.func, new.args, new.keywords) == (function.func, function.args, function.keywords)
            return function if same else new
        if not isfunction(function):
            return self._method(function, path)
        for name in _globals_used(function):
            if _holds_model(function.__globals__[name]):
                self._hidden(function, path, f"the function finds {name!r} among its globals")
        return self._closure(function, path)

    def _method(self, method: Any, path: str) -> Any:
        owner = getattr(method, "__self__", None)
        if isinstance(owner, Runnable):  # such as ``model.invoke``
            new = self.rewrite(owner, f"{path}.__self__")
            return method if new is owner else getattr(new, method.__name__)
        for name, value in getattr(owner, "__dict__", {}).items():
            if isinstance(value, Runnable) and _holds_model(value):
                self._hidden(method, path, f"the method may use {name!r} of its object")
        return method

    def _closure(self, function: FunctionType, path: str) -> FunctionType:
        cells = list(function.__closure__ or ())
        written = _written(function)
        for at, (name, cell) in enumerate(zip(function.__code__.co_freevars, cells, strict=True)):
            value = _content(cell)
            if isfunction(value):
                new: Any = self._function(value, f"{path}[{name}]")
            elif isinstance(value, Runnable | list | tuple | dict):
                if name in written and _holds_model(value):
                    self._hidden(function, path, f"the function assigns {name!r} anew")
                    continue
                new = self.rewrite(value, f"{path}[{name}]")
            else:
                continue
            if new is not value:
                cells[at] = CellType(new)
        if cells == list(function.__closure__ or ()):
            return function
        made = FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, tuple(cells)
        )
        made.__kwdefaults__, made.__dict__ = function.__kwdefaults__, dict(function.__dict__)
        made.__doc__, made.__module__, made.__qualname__ = function.__doc__, function.__module__, function.__qualname__
        made.__annotations__ = dict(function.__annotations__)
        return made

    def _hidden(self, thing: Any, path: str, note: str) -> None:
        what = getattr(thing, "__qualname__", None) or type(thing).__qualname__
        self.found.append(FoundModel(path, what, guarded=False, note=note))


def _holds_model(thing: Any) -> bool:
    look = _Search(None)
    look.rewrite(thing, "")
    return bool(look.found)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _written(function: FunctionType) -> frozenset[str]:
    """Variables of the closure that the function itself assigns: a copy of such a cell would part from the original."""
    return frozenset(
        step.argval for step in dis.get_instructions(function) if step.opname in ("STORE_DEREF", "DELETE_DEREF")
    )


def _globals_used(function: FunctionType) -> Iterator[str]:
    for name in function.__code__.co_names:
        if isinstance(function.__globals__.get(name), Runnable):
            yield name
