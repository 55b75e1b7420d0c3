"""Who sends a request to the proxy, and what its client may say of it.

``key:``, ``user:`` and ``team:`` come from what the proxy authenticated and from nowhere else. Of what a client writes,
some attributes under ``metadata.llm_cost`` count, which cannot lead past a budget of its key; a bounded number of tags;
and, where ``[attribution] trust_end_user`` is set, the end user it names. A user that LiteLLM's own
``user_header_mappings`` reads from a header was authenticated by whoever configured that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from llm_cost_middleware.budget.model import make_scope
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.context import METADATA_KEY
from llm_cost_middleware.errors import ConfigurationError, InvalidScopeError
from llm_cost_middleware.integrations.litellm.arguments import GOVERNED, METADATA, each_metadata

MAX_CLIENT_TAGS = 32
"""Tags of one request that become scopes: each is an account that the ledger keeps for good."""
_MAX_NAME_BYTES = 200
_CLAIMS: Mapping[str, tuple[type, ...]] = {
    "site": (str,),
    "conversation": (str, int),
    "item_count": (int,),
    "max_cost": (str, int, float),
    "patience": (str, int, float),
}
"""What a client may say under ``metadata.llm_cost`` beside ``tags``, and the JSON types of it: none of it leads past a
budget, as ``scopes``, ``user`` or ``force_model`` would."""
_END_USER_HEADERS = ("x-litellm-end-user-id", "x-litellm-customer-id")


class Ignored(NamedTuple):
    """Something that became no scope."""

    what: str
    number: int
    reason: str


class Caller(NamedTuple):
    """Who sends a request, as attributes of ``cost_context``."""

    attributes: Mapping[str, Any]
    ignored: tuple[Ignored, ...]


def is_key(found: Any) -> bool:
    """Whether it is LiteLLM's own note of who was authenticated: nothing that a client can write."""
    from litellm.proxy._types import UserAPIKeyAuth

    return isinstance(found, UserAPIKeyAuth)


def written_identity(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Who sends a chat that no hook saw before its last look (the proxy's queue), as LiteLLM writes it there.

    Only the keys that it writes on that way, over whatever a client put there.
    """
    metadata = arguments.get(METADATA[0])
    said: Mapping[str, Any] = metadata if isinstance(metadata, Mapping) else {}
    found = {
        "key": said.get("user_api_key_alias") or said.get("user_api_key_hash"),
        "user": said.get("user_api_key_user_id"),
        "team": said.get("user_api_key_team_id"),
    }
    return {name: value for name, value in found.items() if isinstance(value, str) and _is_name(value)}


def take_claims(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take what is ours out of the metadata of a request, in place, and return what stood under ``llm_cost``.

    Nothing of it may stay: the id of a hold is looked for there.
    """
    found: Mapping[str, Any] = {}
    for name in METADATA:
        if isinstance(metadata := data.get(name), dict):
            claims = metadata.pop(METADATA_KEY, None)
            metadata.pop(GOVERNED, None)
            found = found or (claims if isinstance(claims, Mapping) else {})
    return found


def identify(key: Any, data: Mapping[str, Any], claims: Mapping[str, Any], config: CostConfig) -> Caller:
    """Who sends a request.

    Args:
        key: LiteLLM's ``UserAPIKeyAuth``.
        data: The request.
        claims: What its client wrote under ``metadata.llm_cost``.
        config: Says which tags have budgets, and whether end users count.

    Raises:
        ConfigurationError: An attribute under ``llm_cost`` is not of its type, or too long.
    """
    attributes: dict[str, Any] = {name: value for name in _CLAIMS if (value := _claim(claims, name)) is not None}
    attributes |= {
        "key": getattr(key, "key_alias", None) or getattr(key, "token", None),
        "user": getattr(key, "user_id", None),
        "team": getattr(key, "team_alias", None) or getattr(key, "team_id", None),
    }
    attributes["tags"], *ignored = _tags(key, data, claims, config)
    if config.attribution.trust_end_user and (name := _end_user(key, data)) is not None:
        if _is_name(name):
            attributes["end_user"] = name
        else:
            ignored.append(Ignored("end_user", 1, f"longer than {_MAX_NAME_BYTES} bytes"))
    kept = {name: value for name, value in attributes.items() if value is not None and value != []}
    return Caller(kept, tuple(ignored))


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    value = claims.get(name)
    if value is None:
        return None
    # not isinstance: JSON's true is no number. Neither a value nor its text is repeated: it may be of any size
    if type(value) not in _CLAIMS[name] or (isinstance(value, str) and not _is_name(value)):
        kinds = " or ".join(kind.__name__ for kind in _CLAIMS[name])
        raise ConfigurationError(
            f"must be {kinds} of at most {_MAX_NAME_BYTES} bytes", key=f"metadata.{METADATA_KEY}.{name}"
        )
    return value


def _tags(key: Any, data: Mapping[str, Any], claims: Mapping[str, Any], config: CostConfig) -> Iterator[Any]:
    """The tags that become scopes; then what was ignored."""
    # those of the key, its team and its project were set by who runs the proxy: always all of them
    owned = (getattr(key, field, None) for field in ("metadata", "team_metadata", "project_metadata"))
    demanded = list(_texts(source.get("tags") for source in owned if isinstance(source, Mapping)))
    written = (metadata.get("tags") for metadata in (*each_metadata(data), claims))
    claimed = dict.fromkeys(_texts(written))
    for tag in demanded:
        claimed.pop(tag, None)
    usable = [tag for tag in claimed if _is_name(tag)]
    surplus = len(usable) - MAX_CLIENT_TAGS
    if surplus > 0:
        # a tag with a budget of its own is never crowded out by others
        budgeted = {budget.scope for budget in config.budgets}
        usable.sort(key=lambda tag: make_scope("tag", tag) not in budgeted)  # stable
    yield list(dict.fromkeys((*demanded, *usable[:MAX_CLIENT_TAGS])))
    if surplus > 0:
        yield Ignored("tags", surplus, f"more than {MAX_CLIENT_TAGS}")
    if unusable := len(claimed) - len(usable):
        yield Ignored("tags", unusable, f"longer than {_MAX_NAME_BYTES} bytes")


def _texts(lists: Iterable[Any]) -> Iterator[str]:
    for tags in lists:
        if isinstance(tags, list | tuple):  # LiteLLM's own form; a text is no list of its letters
            yield from (tag for tag in tags if isinstance(tag, str) and tag)


def _is_name(text: str) -> bool:
    # asked by length first: a text of megabytes is not encoded to be measured
    if len(text) > _MAX_NAME_BYTES:
        return False
    try:
        make_scope("tag", text)
    except InvalidScopeError:
        return False
    return True


def _end_user(key: Any, data: Mapping[str, Any]) -> str | None:
    """The end user that a client names, where LiteLLM looks for it, in its order."""
    headers = (data.get("proxy_server_request") or {}).get("headers") or {}
    metadata, litellm_metadata = (data.get(name) for name in METADATA)
    named = (
        getattr(key, "end_user_id", None),  # what LiteLLM found already
        *(headers.get(name) for name in _END_USER_HEADERS),
        data.get("user"),
        litellm_metadata.get("user") if isinstance(litellm_metadata, Mapping) else None,
        metadata.get("user_id") if isinstance(metadata, Mapping) else None,
        data.get("safety_identifier"),
    )
    return next((str(name) for name in named if type(name) in (str, int) and name != ""), None)
