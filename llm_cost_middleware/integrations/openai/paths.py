"""What else the ``openai`` SDK posts, by path: billed without being governed, or free and why.

A test walks every resource of the installed SDK and fails on a path that stands in neither table.
"""

from __future__ import annotations

from llm_cost_middleware.sdk_clients.api import ENDS

_SESSION = "sessions bill as they run; give the project a spend limit"
_HOSTED = "hosted agents run model calls of their own; give the project a spend limit"

UNGOVERNED = {
    "/completions": "use chat.completions.create",
    "/images/**": "image prices are not governed; use responses.create with an image tool",
    "/audio/speech": "audio prices are not governed; use chat.completions.create with audio",
    "/audio/transcriptions": "audio prices are not governed; use chat.completions.create with audio",
    "/audio/translations": "audio prices are not governed; use chat.completions.create with audio",
    "/audio/voices": "a voice may be generated, which is billed; watch it in the provider's usage",
    "/videos": "video prices are not governed",
    "/videos/**": "video prices are not governed",
    "/responses/compact": "use responses.create",
    "/decisions": "use responses.create with a structured output",
    "/realtime/calls": _SESSION,
    "/realtime/calls/*/accept": _SESSION,
    "/realtime/client_secrets": _SESSION,
    "/realtime/sessions": _SESSION,
    "/realtime/transcription_sessions": _SESSION,
    "/realtime/translations/client_secrets": _SESSION,
    "/live/sessions": _SESSION,
    "/live/sessions/*/accept": _SESSION,
    "/live/sessions/*/fork": _SESSION,
    "/chatkit/sessions": _HOSTED,
    "/agents/sessions": _HOSTED,
    "/agents/sessions/*/events": _HOSTED,
    "/agents/automations": _HOSTED,
    "/agents/automations/*/invocations": _HOSTED,
    "/agents/automations/*/resume": _HOSTED,
    "/agents/environments": "environments are billed while they run; give the project a spend limit",
    "/containers": "containers are billed by the session; give the project a spend limit",
    "/threads/runs": "use responses.create",
    "/threads/*/runs": "use responses.create",
    "/threads/*/runs/*/submit_tool_outputs": "use responses.create",
    "/evals/*/runs": "the runs of an eval call models; give the project a spend limit",
    "/fine_tuning/alpha/graders/run": "a grader may call a model; give the project a spend limit",
    "/fine_tuning/jobs": "training is billed by the job; give the project a spend limit",
    "/fine_tuning/jobs/*/resume": "training is billed by the job; give the project a spend limit",
}

FREE = {
    ENDS: ("**/cancel", "**/hangup", "**/reject", "**/pause"),
    "it hands a call on to somebody else": ("/realtime/calls/*/refer", "/live/sessions/*/refer"),
    "counting tokens is free": ("/responses/input_tokens",),
    "moderation is free": ("/moderations",),
    "it looks for a watermark, and no model is named": ("/content_provenance_checks",),
    "storage is billed by size and day, not by the call": (
        "/files", "/uploads", "/uploads/**", "/vector_stores", "/vector_stores/**", "/containers/*/files",
        "/agents/environments/*/files",
    ),
    "it changes what is stored of an answer": ("/chat/completions/*",),
    "it defines something that is billed when it is used": (
        "/agents", "/agents/*", "/agents/automations/*", "/agents/environments/templates",
        "/agents/environments/templates/*", "/agents/sessions/*", "/assistants", "/assistants/*",
        "/audio/voice_consents", "/audio/voice_consents/*", "/conversations", "/conversations/**", "/evals", "/evals/*",
        "/fine_tuning/alpha/graders/validate", "/skills", "/skills/**", "/threads", "/threads/*",
        "/threads/*/messages", "/threads/*/messages/*", "/threads/*/runs/*",
    ),
    "administration": (
        "/organization/**", "/projects/**", "/vaults", "/vaults/**", "/webhook_endpoints", "/webhook_endpoints/**",
    ),
}  # fmt: skip

_SOCKET = "use responses.create"
SOCKETS = {
    "beta.realtime": _SESSION,
    "beta.responses": _SOCKET,
    "live": _SESSION,
    "live.forks": _SESSION,
    "live.sideband": _SESSION,
    "realtime": _SESSION,
    "realtime.translations": _SESSION,
    "responses": _SOCKET,
}

HELPERS = (
    "beta.agents.environments.files.prepare", "beta.agents.environments.files.prepare_directory",
    "beta.agents.environments.files.upload", "beta.agents.sessions.artifacts.for_result",
    "beta.agents.sessions.stream", "beta.chat.completions.parse", "beta.chat.completions.stream",
    "beta.threads.create_and_run_poll", "beta.threads.create_and_run_stream", "beta.threads.runs.create_and_poll",
    "beta.threads.runs.create_and_stream", "beta.threads.runs.poll", "beta.threads.runs.stream",
    "beta.threads.runs.submit_tool_outputs_and_poll", "beta.threads.runs.submit_tool_outputs_stream",
    "chat.completions.parse", "chat.completions.stream", "files.wait_for_processing", "responses.parse",
    "responses.stream", "uploads.upload_file_chunked", "vector_stores.file_batches.create_and_poll",
    "vector_stores.file_batches.poll", "vector_stores.file_batches.upload_and_poll",
    "vector_stores.files.create_and_poll", "vector_stores.files.poll", "vector_stores.files.upload",
    "vector_stores.files.upload_and_poll", "videos.create_and_poll", "videos.poll", "webhooks.unwrap",
    "webhooks.verify_signature",
)  # fmt: skip
"""Methods without a path of their own: they call the others, or send nothing."""
