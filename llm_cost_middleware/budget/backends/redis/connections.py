"""Clients of redis-py for the URL of a ledger: one server, a cluster, or a master that sentinels know; their errors."""

from __future__ import annotations

import re
import ssl
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from llm_cost_middleware.budget.backend import redacted
from llm_cost_middleware.budget.scripted.patience import FLEET_TRIES, TIMEOUT_S
from llm_cost_middleware.errors import ConfigurationError, LedgerUnavailableError, MissingExtraError
from llm_cost_middleware.extras import needed_for

_SENTINEL_PORT = 26379
_UNREADABLE = "cannot be read; write {}, the password percent-encoded"
_FORMS = {
    "": "redis://user:password@host:port/db",
    "cluster": "redis+cluster://user:password@host:port",
    "sentinel": "redis+sentinel://user:password@host:26379,host2:26379/service/db",
}
_UNKNOWN = re.compile(r"unexpected keyword argument '(\w+)'")
_NO_CLUSTER = "it is no cluster: write redis:// (or rediss://) in the place of redis+cluster://"
_NO_MASTER = (
    "no sentinel names a master: none of them can be reached, none knows that service, or (with TLS) none has a"
    " certificate that is trusted here"
)
_A_CLUSTER = "it is a node of a cluster: write redis+cluster:// in the place of redis://"


class Address(NamedTuple):
    """What a URL says."""

    url: str
    """For redis-py: the one server, a node of the cluster, or what is the same for every master."""
    kind: str
    """``""``, ``cluster`` or ``sentinel``."""
    sentinels: tuple[tuple[str, int], ...]
    service: str
    replicas: int
    """How many replicas must have a write before it counts; 0: the server alone."""

    @property
    def tries(self) -> dict[str, int]:
        """How often a step is sent again, as ``Patience`` takes it: a fleet may promote another server."""
        return {"tries": FLEET_TRIES} if self.kind else {}

    @classmethod
    def read(cls, url: str) -> Address:
        """Read a URL. Raises ``ConfigurationError``, without what it may have of a password."""
        scheme, _, rest = url.partition("://")
        plain, _, kind = scheme.partition("+")
        place, _, query = rest.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        asked = options.pop("wait_replicas", "0")
        if not asked.isascii() or not asked.isdigit() or (kind == "cluster" and asked != "0"):
            advice = "a whole number of replicas" if kind != "cluster" else "not in a cluster: WAIT cannot follow a key"
            raise ConfigurationError(f"wait_replicas must be {advice}", key="ledger.url")
        tail = f"?{urlencode(options)}" if options else ""
        if kind == "cluster" and not place.rpartition("@")[2].strip("/"):
            raise ConfigurationError(_UNREADABLE.format(_FORMS[kind]), key="ledger.url")
        if kind != "sentinel":
            return cls(f"{plain}://{place}{tail}", kind, (), "", int(asked))
        user, _, where = place.rpartition("@")
        hosts, _, path = where.partition("/")
        service, _, db = path.partition("/")
        sentinels = tuple(_host_and_port(host) for host in hosts.split(",") if host)
        if not sentinels or not service:
            raise ConfigurationError(_UNREADABLE.format(_FORMS[kind]), key="ledger.url")
        return cls(f"{plain}://{user}{'@' * bool(user)}master/{db}{tail}", kind, sentinels, service, int(asked))


def _host_and_port(text: str) -> tuple[str, int]:
    try:
        found = urlsplit(f"//{text}")
        place = found.hostname or "", found.port or _SENTINEL_PORT
    except ValueError:
        raise ConfigurationError(_UNREADABLE.format(_FORMS["sentinel"]), key="ledger.url") from None
    return place


def connect(url: str, *, asynchronous: bool) -> tuple[Any, Address]:
    """Make a client of redis-py that reconnects. It sends nothing again by itself: that is ``Patience``'s.

    Raises:
        ConfigurationError: The URL cannot be read, or a plain server was called a cluster.
        RedisError: A cluster does not answer.
    """
    with needed_for("a ledger on Redis"):
        from redis.backoff import NoBackoff

        if asynchronous:
            from redis.asyncio import Redis, RedisCluster
            from redis.asyncio.retry import Retry
        else:
            from redis import Redis, RedisCluster  # type: ignore[assignment]  # the same names, blocking
            from redis.retry import Retry  # type: ignore[assignment]
    address = Address.read(url)
    options: dict[str, Any] = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
    options["retry"] = Retry(NoBackoff(), 0)
    try:
        if address.kind == "cluster":
            return RedisCluster.from_url(address.url, **options), address
        if address.kind == "sentinel":
            return _of_sentinels(address, options, asynchronous=asynchronous), address
        return Redis.from_url(address.url, **options), address
    except (ValueError, TypeError) as error:
        # A password that was not encoded is read as a port, and repeated in the error of redis-py.
        advice = _UNREADABLE.format(_FORMS[address.kind])
        raise ConfigurationError(str(error) if url == redacted(url) else advice, key="ledger.url") from None


def _of_sentinels(address: Address, options: dict[str, Any], *, asynchronous: bool) -> Any:
    if asynchronous:
        from redis.asyncio.connection import parse_url
        from redis.asyncio.sentinel import Sentinel
    else:
        from redis.connection import parse_url
        from redis.sentinel import Sentinel  # type: ignore[assignment]
    parts = urlsplit(address.url)
    query = dict(parse_qsl(parts.query))
    theirs = {name: query.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in query}
    told = dict(parse_url(urlunsplit(parts._replace(query=urlencode(query)))))
    for name in ("host", "port"):
        told.pop(name, None)
    tls: dict[str, Any] = {"ssl": True} if told.pop("connection_class", None) is not None else {}
    of_tls = tls | {name: value for name, value in told.items() if name.startswith("ssl_")}
    make: Any = Sentinel
    found = make(list(address.sentinels), sentinel_kwargs={**options, **of_tls, **theirs}, **options)
    return found.master_for(address.service, **told, **tls)


def sentinels_of(client: Any) -> tuple[Any, ...]:
    """Return the clients by which a client asks for its master; closing it leaves them open."""
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    return () if manager is None else tuple(manager.sentinels)


def is_passing(error: Exception) -> bool:
    """Whether an error may be gone at the next try: of the connection, or of a server that changes its part."""
    if isinstance(error, MissingExtraError):  # there is no driver to ask for its errors
        return False
    from redis.exceptions import (
        AuthenticationError,
        ClusterDownError,
        MasterDownError,
        ReadOnlyError,
        RedisClusterException,
        TryAgainError,
    )
    from redis.exceptions import ConnectionError as Lost
    from redis.exceptions import TimeoutError as TooLate

    if isinstance(error, AuthenticationError) or _is_untrusted(error) or _advice(error):
        return False
    changing = TryAgainError | ClusterDownError | MasterDownError | ReadOnlyError | RedisClusterException
    return isinstance(error, Lost | TooLate | changing)


def unavailable(url: str, error: Exception) -> Exception:
    """Return an error of redis-py or the system as one of ours; any other unchanged."""
    if isinstance(error, MissingExtraError):  # there is no driver to ask for its errors
        return error
    from redis.exceptions import RedisClusterException, RedisError
    from redis.sentinel import MasterNotFoundError

    if advice := _advice(error):
        return ConfigurationError(f"{url}: {advice}", key="ledger.url")
    if isinstance(error, MasterNotFoundError):  # its text is a page of redis-py's insides, without the reason
        return LedgerUnavailableError(url, _NO_MASTER)
    if isinstance(error, RedisError | RedisClusterException | OSError):
        return LedgerUnavailableError(url, str(error) or type(error).__name__)
    return error


def script_unknown(error: Exception) -> bool:
    """Whether the server does not know a script by its hash."""
    from redis.exceptions import NoScriptError

    return isinstance(error, NoScriptError)


def wait_for(replicas: int) -> tuple[Any, ...]:
    """Return the command that waits, in the time of an answer, until replicas have what its connection wrote."""
    return "WAIT", replicas, int(TIMEOUT_S * 1000 / 3)


def written(replies: list[Any], replicas: int) -> Any:
    """Return the reply of a write, if enough replicas have it; else it is asked for again, and then refused."""
    from redis.exceptions import TimeoutError as TooLate

    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    answer, found = replies
    if found < replicas:
        raise TooLate(f"{found} of {replicas} replicas have it")
    return answer


def _advice(error: Exception) -> str:
    from redis.exceptions import MovedError

    if isinstance(error, MovedError):
        return _A_CLUSTER
    if isinstance(error, TypeError) and (found := _UNKNOWN.search(str(error))):
        return f"redis-py knows no option {found[1]}"
    text = str(error).lower()
    return _NO_CLUSTER if "cluster mode is not enabled" in text or "cluster support disabled" in text else ""


def _is_untrusted(error: BaseException | None) -> bool:
    """Whether a certificate is not trusted: it will not be at the next try either."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
