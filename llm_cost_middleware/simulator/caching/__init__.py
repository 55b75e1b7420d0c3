"""Providers' prompt caches, by their published rules."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheUse:
    """Cache reads and writes of a request. `fresh` becomes readable only once its answer has begun.

    Attributes:
        read: Tokens served from the cache.
        write: Tokens written with the short lifetime (5m; 30m at OpenAI).
        write_1h: Tokens written for an hour.
        fresh: (digest, lifetime in seconds) of every entry to store.
        begun_at: When the request came in: lifetimes count from here.
    """

    read: int = 0
    write: int = 0
    write_1h: int = 0
    fresh: tuple[tuple[bytes, float], ...] = ()
    begun_at: float = 0.0


class PrefixStore:
    """Digests of cached prefixes, each with its lifetime and expiry."""

    def __init__(self) -> None:
        self._entries: dict[bytes, tuple[float, float]] = {}

    def live(self, digest: bytes, now: float) -> bool:
        """True while the prefix is cached."""
        entry = self._entries.get(digest)
        return entry is not None and entry[1] > now

    def refresh(self, digest: bytes, now: float) -> None:
        """Return a read renews the entry for its own lifetime, free of charge."""
        lifetime, expires = self._entries[digest]
        self._entries[digest] = (lifetime, max(expires, now + lifetime))

    def commit(self, plan: CacheUse) -> None:
        """Make the entries of a plan readable: its answer has begun."""
        for digest, lifetime in plan.fresh:
            expires = plan.begun_at + lifetime
            old = self._entries.get(digest)
            if old is None or old[1] < expires:
                self._entries[digest] = (lifetime, expires)

    def purge(self, now: float) -> None:
        """Forget what has expired."""
        self._entries = {digest: entry for digest, entry in self._entries.items() if entry[1] > now}

    def __len__(self) -> int:
        return len(self._entries)
