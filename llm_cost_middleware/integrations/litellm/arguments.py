"""Keyword arguments of LiteLLM that matter here: where its metadata stand, what makes it send again, what times it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from llm_cost_middleware.errors import UnsupportedRequestError
from llm_cost_middleware.platform import PLATFORMS
from llm_cost_middleware.timeouts import checked_timeout
from llm_cost_middleware.wire import OUTPUT_CAP_FIELDS

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


class _NoRetries(int):
    """Zero that is true: LiteLLM's function for OpenAI's embeddings reads ``max_retries or 2`` (1.102 to 1.110)."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return True


SINGLE_EMBEDDING: Mapping[str, Any] = {"max_retries": _NoRetries()}
"""What an embedding needs beside them: below the router, LiteLLM's client would repeat it."""
UNSHADOWED: Mapping[str, Any] = {"is_silent_experiment": True}
"""Metadata of a chat that LiteLLM does not send to a ``silent_model`` too: it takes the call for such a copy."""
LOGGING = "litellm_logging_obj"
"""LiteLLM's object for the logging of a request, one from the first hook to the last."""
TIMEOUTS = ("timeout", "request_timeout", "stream_timeout")


def seconds_of(timeout: Any) -> Any:
    """A timeout, of which LiteLLM also takes the number as text."""
    return float(timeout) if isinstance(timeout, str) else timeout


def check_timeouts(what: str, arguments: Mapping[str, Any]) -> None:
    """Look at the timeouts among keyword arguments, or a deployment's parameters.

    Raises:
        UnsupportedRequestError: One can only end before the answer is there: some of the ways through LiteLLM would
            send the request all the same.
    """
    for name in TIMEOUTS:
        try:
            checked_timeout(seconds_of(arguments.get(name)))
        except (TypeError, ValueError) as error:
            raise UnsupportedRequestError(f"the {name} of {what}", str(error)) from None


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


_DECIDING = frozenset({
    *OUTPUT_CAP_FIELDS, "n", "messages", "input", "instructions", "system", "tools", "tool_choice", "service_tier",
    "speed", "inference_geo", "thinking", "reasoning", "reasoning_effort", "response_format", "text", "output_config",
    "background", "previous_response_id", "conversation", "prompt", "web_search_options", "modalities", "model",
    "stream", "stream_options",
})  # fmt: skip
"""Fields of a body that decide what a call can cost."""
_SPELT_OTHERWISE = {"maxTokens": "max_tokens"}
"""Caps as Converse spells them: LiteLLM hands them on, beside the one that it translates and over it (1.108.7)."""


def laid_open(arguments: Mapping[str, Any], defaults: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments whose ``extra_body`` hides nothing that costs, and which drop no output cap.

    LiteLLM lays ``extra_body`` over the body, so what it says of them is what is sent: it is held as such. A cap that
    ``additional_drop_params`` would take out of the request is the one that the money was set aside for.

    Raises:
        UnsupportedRequestError: It names another model or deployments of its own, or a cap as only a platform spells
            it.
    """
    for name, ours in _SPELT_OTHERWISE.items():
        if arguments.get(name) is not None or defaults.get(name) is not None:
            raise UnsupportedRequestError(name, f"write it as {ours}")
    if (
        arguments.get("model_list") is not None or defaults.get("model_list") is not None
    ):  # it calls all of these at once
        raise UnsupportedRequestError("a model_list in a call", "give it to the router")
    asked = arguments.get("model_id")
    if asked is not None and asked != defaults.get("model_id"):  # LiteLLM calls it instead of the deployment's model
        raise UnsupportedRequestError("a model_id in a call", "name the model in a deployment")
    extra = arguments.get("extra_body") or defaults.get("extra_body")
    dropped = arguments.get("additional_drop_params") or defaults.get("additional_drop_params")
    changed: dict[str, Any] = {}
    if isinstance(extra, Mapping) and (hidden := _DECIDING & extra.keys()):
        if "model" in hidden:
            raise UnsupportedRequestError("a model in extra_body", "name it as the call's model")
        changed |= {name: extra[name] for name in hidden}
        changed["extra_body"] = {name: value for name, value in extra.items() if name not in hidden}
    if isinstance(dropped, Iterable) and not isinstance(dropped, str):
        kept = [name for name in dropped if name not in OUTPUT_CAP_FIELDS]
        if len(kept) < len(list(dropped)):
            changed["additional_drop_params"] = kept
    return {**arguments, **changed} if changed else arguments


_PLACING = ("aws_region_name", "region_name", "aws_bedrock_runtime_endpoint", "aws_bedrock_client", "vertex_location",
            "vertex_ai_location", "litellm_credential_name")  # fmt: skip
_ADDRESSES = ("api_base", "base_url", "custom_llm_provider")


def check_placing(arguments: Mapping[str, Any], providers: Iterable[str]) -> None:
    """Look for arguments that would send a call elsewhere than its deployment says, which it is held for.

    Args:
        arguments: Of the call, and those that the router adds to every call.
        providers: The providers and platforms that money is held for.

    Raises:
        UnsupportedRequestError: There is one.
    """
    reached = frozenset(providers)
    if arguments.get("deployment_id") is not None:  # of Azure: LiteLLM calls it instead of the deployment's model
        raise UnsupportedRequestError("a deployment_id in a call", "name it in a deployment")
    asked = "azure" if arguments.get("azure") is True else arguments.get("custom_llm_provider")
    if asked is not None and asked not in reached:
        raise UnsupportedRequestError(f"custom_llm_provider or azure in a call, {asked!r}", "name it in a deployment")
    if PLATFORMS.isdisjoint(reached):
        return
    for name in (*_PLACING, *_ADDRESSES):
        if arguments.get(name) is not None:
            raise UnsupportedRequestError(f"{name} in a call of a platform", "write it into a deployment")


def each_metadata(arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every metadata mapping among keyword arguments."""
    for name in METADATA:
        found = arguments.get(name)
        if isinstance(found, Mapping):
            yield found


def find_metadata(arguments: Mapping[str, Any], key: str) -> Any:
    """The value of a key in the first metadata that has it; ``None`` where none has."""
    return next((found[key] for found in each_metadata(arguments) if key in found), None)
