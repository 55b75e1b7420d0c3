"""The life of one call, written once: a generator of commands, and the two drivers that run them."""

from llm_cost_middleware.lifecycle.bookkeeping import Bookkeeper
from llm_cost_middleware.lifecycle.call import life
from llm_cost_middleware.lifecycle.commands import World
from llm_cost_middleware.lifecycle.drivers import adrive, drive
from llm_cost_middleware.lifecycle.engine import Engine
from llm_cost_middleware.lifecycle.state import Answer, Settings
from llm_cost_middleware.lifecycle.streams import AsyncGovernedStream, GovernedStream

__all__ = [
    "Answer", "AsyncGovernedStream", "Bookkeeper", "Engine", "GovernedStream", "Settings", "World",
    "adrive", "drive", "life",
]  # fmt: skip
