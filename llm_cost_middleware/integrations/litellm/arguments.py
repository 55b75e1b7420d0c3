"""Keyword arguments of LiteLLM that matter here: where its metadata stand, what makes it send again, what times it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

METADATA = ("metadata", "litellm_metadata")
"""Where callers, and LiteLLM itself, put metadata. The first is also a field of OpenAI's own but for the chat API."""
GOVERNED = "llm_cost_governed"
"""Key in LiteLLM's metadata of a governed call's signed id."""
RESENDING = (
    "fallbacks",
    "context_window_fallbacks",
    "content_policy_fallbacks",
    "max_fallbacks",
    "retry_policy",
    "model_group_retry_policy",
    "retry_strategy",
    "mock_testing_fallbacks",
    "mock_testing_context_fallbacks",
    "mock_testing_content_policy_fallbacks",
    "mock_testing_rate_limit_error",
)
"""Those by which LiteLLM would send a request again: that is decided here, once."""
SINGLE_ATTEMPT: Mapping[str, Any] = {"num_retries": 0, "disable_fallbacks": True, "max_fallbacks": 0}
"""Those that turn LiteLLM's own retries off for one call. Up to 1.105 a stream that breaks before its first chunk heeds
the last one only."""
SINGLE_RESPONSE: Mapping[str, Any] = {"retry_policy": {"DefaultRetries": 0}}
"""What a call of the responses API needs beside them: LiteLLM's own function, below the router, repeats it as often as
the deployment's ``num_retries`` says; up to 1.105 the asynchronous one, from 1.110 on the synchronous one."""
NOT_OF_SYNC_RESPONSES = ("disable_fallbacks", "max_fallbacks")
"""Those of them that the synchronous ``responses`` would hand on to the provider, who refuses them."""
UNSHADOWED: Mapping[str, Any] = {"is_silent_experiment": True}
"""Metadata of a chat that LiteLLM does not send to a ``silent_model`` too: it takes the call for such a copy."""
LOGGING = "litellm_logging_obj"
"""LiteLLM's object for the logging of a request, one from the first hook to the last."""
TIMEOUTS = ("timeout", "request_timeout", "stream_timeout")


_SENT = frozenset({"client", "extra_headers", "extra_query", "headers", "drop_params", "additional_drop_params",
                   "api_type", "priority", "specific_deployment", "request_kwargs", "use_in_pass_through"})  # fmt: skip
"""Arguments of LiteLLM that its list of its own leaves out."""


@cache
def _own_names() -> frozenset[str]:
    from litellm.types.utils import all_litellm_params

    # the metadata of responses and messages is also the provider's, and bookkeeping in both
    return frozenset({*all_litellm_params, *RESENDING, *TIMEOUTS, *_SENT})


def is_own(name: str) -> bool:
    """Whether a keyword argument is LiteLLM's, and no parameter of the model."""
    return name.startswith(("litellm_", "_")) or name in _own_names()


def each_metadata(arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every metadata mapping among keyword arguments."""
    for name in METADATA:
        found = arguments.get(name)
        if isinstance(found, Mapping):
            yield found


def find_metadata(arguments: Mapping[str, Any], key: str) -> Any:
    """The value of a key in the first metadata that has it; ``None`` where none has."""
    return next((found[key] for found in each_metadata(arguments) if key in found), None)
