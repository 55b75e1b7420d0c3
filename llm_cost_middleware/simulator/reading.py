"""Validated request, reply and dialect: the same shape for every endpoint."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

from .answers import Answer, SimRequest
from .bill import Tokens
from .catalogue import ProviderName, SimModel
from .prompts import Prompt
from .tokens import Tokenizer


class Frame(NamedTuple):
    """One event of a stream, and the output tokens produced once it has left."""

    data: bytes
    produced: int


@dataclass(frozen=True, slots=True)
class Reading:
    """Request that a provider would serve.

    `extra` is for the dialect's own use: what its replies repeat.
    """

    request: SimRequest
    model: SimModel
    prompt: Prompt
    salt: tuple[str, ...] = ()  # what separates caches besides provider, key and model
    tier: str = "standard"
    geo: str = ""
    explicit_only: bool = False
    lifetime: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Reply(NamedTuple):
    """Measured answer on its way out; `choices` counts how often it is given."""

    reading: Reading
    answer: Answer
    tokens: Tokens
    answer_id: str
    ids: "Ids"
    now: float
    usage: bool = True
    bare_delta: bool = False
    failure: Mapping[str, str] | None = None  # code and message of a response that failed


@dataclass(frozen=True, slots=True)
class Dialect:
    """One endpoint: how its requests are read and its answers written.

    Attributes:
        read: Validates a body; raises `Refusal` where the provider would refuse it.
        reply: The JSON answer.
        frames: The answer as server-sent events, in pieces of so many characters.
        error_frame: The event that reports an error inside a stream, by type and message.
    """

    provider: ProviderName
    endpoint: str
    id_prefix: str
    id_length: int
    read: Callable[[Mapping[str, Any], Mapping[str, str], Tokenizer, int], Reading] = field(repr=False)
    reply: Callable[[Reply], dict[str, Any]] = field(repr=False)
    frames: Callable[[Reply, int], Iterator[Frame]] = field(repr=False)
    error_frame: Callable[[str, str | None], bytes] = field(repr=False)


_HEX_FROM = 32


class Ids:
    """Made-up ids in the providers' forms, the same in every run with the same seed."""

    _ALPHABET = "0123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._count = 0

    def new(self, prefix: str, length: int = 22) -> str:
        """Return a fresh id: the prefix and `length` letters and digits, hexadecimal if as long as in ``resp_…``."""
        self._count += 1
        number = int.from_bytes(blake2b(f"{self._seed}:{self._count}".encode(), digest_size=32).digest(), "big")
        if length >= _HEX_FROM:
            return prefix + f"{number:064x}"[:length]
        letters = []
        for _ in range(length):
            number, at = divmod(number, len(self._ALPHABET))
            letters.append(self._ALPHABET[at])
        return prefix + "".join(letters)


def pieces(text: str, size: int) -> Iterator[str]:
    """Yield a text in stretches of `size` characters, longer ones when that would make more than 200."""
    size = max(size, -(-len(text) // 200))
    for at in range(0, len(text), size):
        yield text[at : at + size]


def share(total: int, done: int, whole: int) -> int:
    """Return the part of `total` tokens that `done` of `whole` characters stand for."""
    return total if whole <= 0 else total * done // whole
