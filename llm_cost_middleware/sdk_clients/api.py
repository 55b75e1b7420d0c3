"""What differs between the two SDKs: data, and what only one of them does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from posixpath import normpath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol
from urllib.parse import unquote

from llm_cost_middleware.refusals import HostErrors
from llm_cost_middleware.request import Endpoint

if TYPE_CHECKING:
    from llm_cost_middleware.sdk_clients.batches import Batches

ENDS = "it ends or halts something"
"""Why such a path is free: the same words in the tables of both SDKs."""
Body = dict[str, Any]
_UNKNOWN = "its cost is not known here; watch it in the provider's usage, or give the project a spend limit"
_SCHEME = re.compile(r"\A\s*[A-Za-z][A-Za-z0-9+.-]*:")
FREE_VERBS = frozenset({"get", "head", "delete", "options"})
"""They show or end something. Nothing is made by them, so nothing is billed."""


class Treatment(NamedTuple):
    """What becomes of a request to one path."""

    kind: Literal["governed", "reported", "free"]
    """``reported``: warned of, refused or let through, as ``on_ungoverned`` says."""
    why: str
    """What is done, why it is free, or what to do instead."""


class BatchRequests(NamedTuple):
    """What a call that creates a batch asks for."""

    requests: Iterable[tuple[Body, Endpoint]]
    body: Body
    """The body to send, without the attributes."""
    attributes: Any = None
    """What stands under ``llm_cost`` in the body."""


class BatchApi(Protocol):
    """How an SDK creates batches and reads their results."""

    path: str
    """Where batches are created."""

    def input_file(self, body: Body) -> str | None:
        """The id of the uploaded file that holds the requests; ``None`` where they stand in the body."""
        ...

    def read_requests(self, body: Body, content: bytes) -> BatchRequests:
        """The requests of a batch. ``content``: that of the input file, if there is one."""
        ...

    def filled(self, body: Body, fields_of: Callable[[Body], Mapping[str, Any]]) -> Body:
        """A body with the fields that its requests, or the batch itself, are sent with beside their own."""
        ...

    def observes(self, path: str) -> bool:
        """Whether a GET of this path shows the state or the results of a batch."""
        ...

    def observe(self, batches: Batches, path: str, answer: Any) -> Any:
        """Take note of the answer to a GET, and return what its caller gets: the answer, or a copy of it."""
        ...


@dataclass(frozen=True, slots=True)
class Api:
    """One provider's SDK."""

    provider: str
    """The provider, and the name of the SDK's package."""
    clients: frozenset[str]
    """Its client classes that talk to the provider itself."""
    endpoints: Mapping[str, Endpoint]
    """Paths that are governed."""
    methods: Mapping[str, tuple[str, ...]]
    """Governed methods, by the dotted path of their resource: they take ``extra``."""
    ungoverned: Mapping[str, str]
    """Other paths that are billed, as ``matches`` reads them, and what to do instead of calling them."""
    free: Mapping[str, tuple[str, ...]]
    """Why a call costs nothing, and the paths of such calls; ``ungoverned`` comes first."""
    errors: HostErrors
    """The package's errors as the SDK's own."""
    injected_chunks: Callable[[Body], Callable[[Any], bool] | None]
    """For a streaming body: recognises the chunks that its caller did not ask for; ``None``: they get them all."""
    batches: BatchApi
    sockets: Mapping[str, str]
    """Resources with a ``connect``, by their dotted path, and what to do instead of connecting."""
    platforms: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Its client classes that talk to a platform, each with the platform's name."""
    later: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """By verb: the path, as ``matches`` reads it, that shows or ends an answer asked for in the background."""

    def shows_bill(self, verb: str, path: str) -> bool:
        """Whether the answer to a path may report the usage of an earlier call."""
        return verb in self.later and matches(self.later[verb], self.canonical(path))

    helpers: tuple[str, ...] = ()
    """Methods, by their dotted path, that only call others, or send nothing: without a path of their own."""

    def ends(self, path: str) -> bool:
        """Whether a path ends or halts something: nothing of anybody's is sent with it."""
        return _any(self.free.get(ENDS, ()), path)

    def canonical(self, path: str) -> str:
        """A path as the resources write it, from any spelling: absolute, with a query, with dots, or quoted."""
        bare = path.partition("?")[0].partition("#")[0]  # neither is part of what is asked for
        if "://" in bare or bare.startswith("//"):  # of either form the first part is a host
            bare = "/" + bare.partition("//")[2].partition("/")[2]
        elif ":" in bare:  # a scheme without a host is passed over
            bare = _SCHEME.sub("", bare)
        if "%" in bare or "//" in bare or "/." in bare or bare[:1] == ".":  # which the client, or the server, takes out
            bare = normpath(f"/{unquote(bare)}")
        bare = "/" + bare.lstrip("/")
        # one SDK has the version in its paths, the other in its base URL, and a gateway may add a beginning of its own
        _, version, rest = bare.partition("/v1/")
        root = "/v1/" if next(iter(self.endpoints)).startswith("/v1/") else "/"
        return root + rest if version else bare

    def treatment(self, verb: str, path: str) -> Treatment:
        """What becomes of a request by its verb, in small letters, and its path: the one rule for all of them."""
        bare = self.canonical(path)
        if verb == "post" and bare in self.endpoints:
            return Treatment("governed", "held before it is sent, retried and booked")
        if verb == "post" and bare == self.batches.path:
            return Treatment("governed", "the sum of its requests is held at the price of batches")
        if verb in FREE_VERBS:
            return Treatment("free", "it shows or ends something")
        advice = self.advice_for(bare)
        if advice is not None:
            return Treatment("reported", advice)
        return Treatment("free", next(why for why, patterns in self.free.items() if _any(patterns, bare)))

    def advice_for(self, path: str) -> str | None:
        """What to do instead of a ``POST`` that is not governed; ``None`` where it costs nothing.

        A path that no pattern knows may be billed: it is new in the SDK, or somebody else's.
        """
        for pattern, advice in self.ungoverned.items():
            if matches(pattern, path):
                return advice
        return None if any(_any(patterns, path) for patterns in self.free.values()) else _UNKNOWN


def _any(patterns: Iterable[str], path: str) -> bool:
    return any(matches(pattern, path) for pattern in patterns)


@lru_cache(maxsize=1024)
def matches(pattern: str, path: str) -> bool:
    """Whether ``path`` is of ``pattern``, in which ``*`` stands for one segment and ``**`` for any number of them."""
    return re.fullmatch(re.escape(pattern).replace(r"\*\*", ".+").replace(r"\*", "[^/]+"), path) is not None
