"""Recorded conversations of agents, and tools that give the results that were recorded."""

from __future__ import annotations

import gzip
import itertools
import json

from langchain_core.tools import StructuredTool


def recorded(folder, count):
    """The first conversations of the recordings, and the definitions of their tools."""
    with gzip.open(folder / "agent_traces" / "airline_conversations.jsonl.gz", "rt") as lines:
        conversations = [json.loads(line) for line in itertools.islice(lines, count)]
    return conversations, json.loads((folder / "agent_traces" / "airline_tools.json").read_text())


def replayed(schemas, results):
    """The tools of a conversation: each gives the results that were recorded, in their order."""

    def make(definition):
        function = definition["function"]

        def call(**_):
            return results.pop(0)

        name, description, schema = (function[key] for key in ("name", "description", "parameters"))
        return StructuredTool(name=name, description=description, args_schema=schema, func=call)

    return [make(definition) for definition in schemas]
