"""Answers that LiteLLM makes up by itself (``mock_response`` and its kind): nothing was sent, so they cost nothing.

An argument proves nothing, because LiteLLM heeds some of them on some endpoints only: what counts is what it did.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.usage import UsageReport
from llm_cost_middleware.wire import as_mapping, field_reader

MADE_UP = UsageReport(unbilled=True, complete=True, warnings=("LiteLLM made the answer up: nothing was sent",))
"""The usage of such an answer."""
_ASKING = ("mock_response", "mock_tool_calls", "mock_timeout")
_KEYS = ("mock-key", "my-secret-key")
"""The keys that LiteLLM shows for a chat that it answers itself, before and after."""
_IDS = ("resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b", "msg_013Zva2CMHLNnXjNJJKqJ2EF")
"""The ids of all such answers of the responses and the messages API: of examples in the providers' documentation."""
_ENCODED = "resp_"


class MadeUpReader:
    """A ``StreamUsageReader`` of a stream that LiteLLM makes up."""

    __slots__ = ()

    def feed(self, event: Any) -> None:
        """Nothing is read."""

    def reading(self) -> UsageReport:
        """It costs nothing."""
        return MADE_UP


def shows_mock(details: Mapping[str, Any]) -> bool:
    """Whether a chat of which LiteLLM shows ``details``, to a ``logger_fn`` or a callback, is answered by itself."""
    # a key alone may really be called so; a request alone is left out of what is shown of some streams
    shown = details.get("original_response")
    unsent = not details.get("additional_args") and (shown is None or isinstance(shown, str))
    return unsent and details.get("api_key") in _KEYS


def is_made_up(answer: Any) -> bool:
    """Whether an answer of the responses or the messages API is LiteLLM's own."""
    found = field_reader(answer)("id")
    return isinstance(found, str) and provider_id(found) in _IDS


def asks_for_mock(arguments: Mapping[str, Any]) -> bool:
    """Whether LiteLLM answers a chat with these arguments, or these of its deployment, by itself."""
    return any(arguments.get(name) for name in _ASKING)


def deployment_of(answer: Any) -> Any:
    """The id of the deployment that an answer, or a stream, of LiteLLM names."""
    return as_mapping(field_reader(answer)("_hidden_params")).get("model_id")


def provider_id(response_id: str) -> str:
    """The provider's own id of a response, out of the one that LiteLLM makes of it; any other id as it is."""
    try:
        text = base64.b64decode(response_id.removeprefix(_ENCODED), validate=True).decode()
    except (binascii.Error, ValueError):
        return response_id
    return text.rpartition("response_id:")[2] if text.startswith("litellm:") else response_id
