"""The kinds of request that LiteLLM's proxy makes: which are governed, which cost nothing, which it looks at twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.request import Endpoint

GOVERNED_KINDS: Mapping[str, Endpoint] = {
    "completion": "chat.completions",
    "acompletion": "chat.completions",
    "responses": "responses",
    "aresponses": "responses",
    "anthropic_messages": "messages",
    "aanthropic_messages": "messages",
    "embedding": "embeddings",
    "aembedding": "embeddings",
}
"""Those whose money is set aside, and the API whose shape they have."""
_LISTS = """
    moderation amoderation acount_tokens afile_list afile_content afile_retrieve afile_delete acreate_file
    aretrieve_batch alist_batches acancel_batch
    aget_responses adelete_responses acancel_responses alist_input_items
    aget_assistants acreate_assistants adelete_assistant acreate_thread aget_thread a_add_message aget_messages
    acancel_fine_tuning_job alist_fine_tuning_jobs aretrieve_fine_tuning_job
    alist_containers aretrieve_container adelete_container alist_container_files aupload_container_file
    aretrieve_container_file adelete_container_file aretrieve_container_file_content
    avector_store_retrieve avector_store_list avector_store_update avector_store_delete avector_store_file_list
    avector_store_file_retrieve avector_store_file_content avector_store_file_update avector_store_file_delete
    avideo_list avideo_status avideo_content avideo_get_character avideo_delete avideo_retrieve
    acreate_skill alist_skills aget_skill adelete_skill
    aget_interaction adelete_interaction acancel_interaction
    alist_agents aget_agent adelete_agent alist_agent_versions
    acreate_eval alist_evals aget_eval aupdate_eval adelete_eval acancel_eval
    alist_runs aget_run acancel_run adelete_run
"""
FREE_KINDS = frozenset(_LISTS.split())
"""Those that cost nothing: what is stored, listed, counted and cancelled."""
CARRYING_KINDS = frozenset(
    [
        "moderation",
        "amoderation",
        "acount_tokens",
        "acreate_file",
        "acreate_assistants",
        "acreate_thread",
        "a_add_message",
        "acreate_skill",
        "aupload_container_file",
        "acreate_eval",
    ]
)
"""Those of them that send what its owner may want to keep in a region."""
WRAPPED_KINDS = frozenset({"agenerate_content", "agenerate_content_stream", "acreate_interaction"})
"""Those that LiteLLM makes another of, for the providers that are governed: that one is looked at in its turn."""
DIRECT_KINDS = frozenset({"pass_through_endpoint"})
"""Those that the proxy sends by itself: LiteLLM looks at none of them a second time."""
INNER_KINDS: Mapping[str, frozenset[str]] = {
    "anthropic_messages": frozenset({"acompletion", "aresponses"}),
    "acompletion": frozenset({"aresponses"}),
    "aresponses": frozenset({"acompletion"}),
}
"""What LiteLLM makes of a request on its way to a provider without that API: one request, looked at twice."""


def kind_of(call_type: Any) -> str:
    """The kind of a request, as LiteLLM names it to its hooks."""
    return str(getattr(call_type, "value", call_type))


def several(endpoint: Endpoint | None, data: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of a chat that the proxy makes a request each of, as ``"a, b"``; none where it is one request."""
    model = data.get("model")
    if endpoint != "chat.completions" or not isinstance(model, str) or "," not in model:
        return ()
    return tuple(name for part in model.split(",") if (name := part.strip()))
