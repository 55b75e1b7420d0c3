"""A pytest plugin that puts this package in the place of a host's own objects, for ``run.py``.

No budgets and no routing: what differs then is what the package changes by being there.
"""

from __future__ import annotations

import functools
import importlib
import os
from typing import Any

from llm_cost_middleware import CostConfig, CostPipeline

CONFIG = CostConfig(on_unknown_price="estimate", on_ungoverned="allow", routing={"policy": "threshold"})


def pipeline() -> CostPipeline:
    """One for each object: what one test's provider does must not open the breaker of another's."""
    return CostPipeline(CONFIG)


def replace_client(module: Any, name: str, wrap: Any) -> None:
    """Let calling a client's class return a governed client of that class; it stays the class otherwise."""
    original = getattr(module, name)

    class Meta(type(original)):  # type: ignore[misc]  # whatever it is
        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            made = super().__call__(*args, **kwargs)
            return wrap(made, pipeline()) if type(made).__module__.partition(".")[0] != "llm_cost_middleware" else made

        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, original) if cls is replaced else super().__instancecheck__(instance)

        def __subclasscheck__(cls, other: type) -> bool:
            return issubclass(other, original) if cls is replaced else super().__subclasscheck__(other)

    namespace = {"__module__": original.__module__, "__qualname__": original.__qualname__, "__doc__": original.__doc__}
    replaced = Meta(original.__name__, (original,), namespace)
    for place in (module, importlib.import_module(f"{module.__name__}._client")):
        setattr(place, name, replaced)


def guard_class(kind: Any) -> None:
    """Let every model of a class be guarded from the start."""
    from llm_cost_middleware.integrations.langchain import guard, targets
    from llm_cost_middleware.integrations.langchain.guarded import is_guarded

    building: list[bool] = []
    original, construct = kind.__init__, targets._construct

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if not building and not is_guarded(self) and targets.provider_of(self) is not None:
            object.__setattr__(self, "__class__", type(guard(self, pipeline(), pinned=True)))

    def constructed(*args: Any) -> Any:
        building.append(True)
        try:
            return construct(*args)
        finally:
            building.pop()

    kind.__init__, targets._construct = init, constructed


def add_middleware(module: Any) -> None:
    """Let every agent have a ``CostMiddleware``, the innermost."""
    from llm_cost_middleware.integrations.langchain import CostMiddleware

    factory = importlib.import_module("langchain.agents.factory")
    original = factory.create_agent

    @functools.wraps(original)
    def create_agent(*args: Any, middleware: Any = (), **kwargs: Any) -> Any:
        return original(*args, middleware=[*middleware, CostMiddleware(pipeline())], **kwargs)

    for place in (factory, module):
        place.create_agent = create_agent


NAME = os.environ["LLM_COST_DROP_IN"]
if NAME in ("anthropic", "openai"):
    _sdk = importlib.import_module(NAME)
    _wrap = getattr(importlib.import_module(f"llm_cost_middleware.integrations.{NAME}"), f"wrap_{NAME}")
    for _name in ("OpenAI", "AsyncOpenAI") if NAME == "openai" else ("Anthropic", "AsyncAnthropic"):
        replace_client(_sdk, _name, _wrap)
elif NAME == "langchain-openai":
    guard_class(importlib.import_module("langchain_openai").ChatOpenAI)
elif NAME == "langchain-anthropic":
    guard_class(importlib.import_module("langchain_anthropic").ChatAnthropic)
else:
    add_middleware(importlib.import_module("langchain.agents"))
