"""``llm-cost help methods``: what becomes of every method of the SDKs, out of the tables by which they are governed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llm_cost_middleware.integrations.anthropic.convert import API as ANTHROPIC
from llm_cost_middleware.integrations.openai.convert import API as OPENAI
from llm_cost_middleware.sdk_clients import Api

_METERED = "metered: `connect` is reported, and booked by what its events say of usage"


def tables() -> str:
    """The tables of the topic, as Markdown."""
    return "\n".join(["", *_of(OPENAI), *_of(ANTHROPIC)]) + "\n"


def _of(api: Api) -> Iterator[str]:
    clients = ", ".join(f"`{name}`" for name in sorted({*api.clients, *api.platforms}))
    yield f"## {api.provider}\n\nClients: {clients}. Another class is reported when it is wrapped, and not governed.\n"
    yield "| governed: held, retried and booked | |\n|---|---|"
    for path in (*api.endpoints, api.batches.path):
        yield f"| `POST {path}` | {api.treatment('post', path).why} |"
    named = ", ".join(f"`{where}.{name}`" for where, names in api.methods.items() for name in names)
    yield f"\nOf these methods, which take `extra`: {named}.\n"
    yield "| reported | what to do instead |\n|---|---|"
    yield from _rows(api.ungoverned.items())
    if api.sockets:
        yield f"\n| {_METERED} | what to do instead |\n|---|---|"
        yield from (f"| `{where}.connect` | {advice} |" for where, advice in api.sockets.items())
    yield "\n| free | why |\n|---|---|"
    for why, paths in api.free.items():
        yield f"| {', '.join(f'`{path}`' for path in paths)} | {why} |"
    made_of = ", ".join(f"`{name}`" for name in api.helpers)
    yield f"\nMade of the methods above, or sending nothing: {made_of}.\n"


def _rows(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    return (f"| `POST {path}` | {advice} |" for path, advice in pairs)
