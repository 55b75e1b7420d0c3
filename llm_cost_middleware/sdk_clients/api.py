"""What differs between the two SDKs: data, and what only one of them does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from llm_cost_middleware.request import Endpoint

if TYPE_CHECKING:
    from llm_cost_middleware.sdk_clients.batches import Batches

Body = dict[str, Any]


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
    """Beginnings of other paths that are billed, and what to do instead of calling them."""
    injected_chunks: Callable[[Body], Callable[[Any], bool] | None]
    """For a streaming body: recognises the chunks that its caller did not ask for; ``None``: they get them all."""
    batches: BatchApi
