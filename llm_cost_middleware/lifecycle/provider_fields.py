"""The providers' own fields for whoever a call is made for: read as an end user, and filled from our scopes.

OpenAI has ``user``, ``safety_identifier`` (64 characters) and ``metadata`` (keys of 64, values of 512 characters;
``platform.openai.com/docs/api-reference``). Anthropic has ``metadata.user_id`` (256 characters) and nothing else in its
``metadata`` (``docs.anthropic.com/en/api/messages``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from llm_cost_middleware.budget.model import make_scope
from llm_cost_middleware.errors import ConfigurationError, InvalidScopeError
from llm_cost_middleware.request import EMPTY

END_USER = "end_user"
_PATH = re.compile(r"(?:user|safety_identifier|metadata\.[A-Za-z0-9_-]{1,64})\Z")
_LONGEST = {
    "openai": {"user": 512, "safety_identifier": 64, "metadata": 512},
    "anthropic": {"metadata": 256},
}
_ONLY = {"anthropic": frozenset({"metadata.user_id"})}


def check_path(path: object, key: str) -> str:
    """Return the name of a field. Raises ``ConfigurationError``."""
    if not isinstance(path, str) or not _PATH.match(path):
        raise ConfigurationError(
            f"{path!r} is no field of a provider; they are user, safety_identifier and metadata.KEY", key=key
        )
    return path


def end_user_in(settings: Mapping[str, Any], paths: Iterable[str]) -> str | None:
    """Return the scope of the end user that a request names in the first of some fields that holds a usable name."""
    nested = settings.get("extra_body")  # of LangChain and LiteLLM, which leave it to the SDK: it wins there
    sources = (nested, settings) if isinstance(nested, Mapping) else (settings,)
    for path in paths:
        name, _, key = path.partition(".")
        value = next((source[name] for source in sources if source.get(name) is not None), None)
        if key:
            value = value.get(key) if isinstance(value, Mapping) else None
        if type(value) in (str, int) and value != "":
            try:
                return make_scope(END_USER, str(value))
            except InvalidScopeError:  # too long, say: what a client writes must not break its call
                continue
    return None


def filled(
    fields: Mapping[str, str], scopes: Iterable[str], settings: Mapping[str, Any], provider: str
) -> Mapping[str, Any]:
    """Return the fields to send beside a request.

    Args:
        fields: The kind of scope that fills each field.
        scopes: Those of the call.
        settings: What the request has already, which stays.
        provider: Who is asked. Fields that it does not have, and names that are too long for them, are left out.
    """
    if not fields:
        return EMPTY
    names: dict[str, str] = {}
    for scope in scopes:
        kind, _, name = scope.partition(":")
        names.setdefault(kind, unquote(name))
    sent: dict[str, Any] = {}
    for path, kind in fields.items():
        field, _, key = path.partition(".")
        longest = _LONGEST.get(provider, {}).get(field)
        text = names.get(kind)
        if longest is None or text is None or len(text) > longest or path not in _ONLY.get(provider, {path}):
            continue
        if not key:
            if settings.get(field) is None:
                sent[field] = text
        elif isinstance(given := settings.get(field) or {}, Mapping) and key not in given:
            sent[field] = {**given, **sent.get(field, {}), key: text}
    return sent or EMPTY
