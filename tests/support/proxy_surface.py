"""Routes of LiteLLM's proxy as data: which can reach a provider, what they are asked with, and what costs nothing."""

from __future__ import annotations

import re

_MANAGEMENT = "keeps the proxy's own data"
_FOREIGN = "reaches tools and agents, and no model"
_SKIPPED = {
    _MANAGEMENT: """
        team management|model management|mcp_management|mcp_discoverable|scim|policy_engine|Budget & Spend Tracking
        organization management|key management|credential management|Customer Management|Internal User management
        tag management|Lens|policies|prompts|access_groups|Budget & Spend Tracking,Internal User management
        workflow management|Cost Tracking|tools|config_overrides|claude_code_marketplace|agent tracing
        budget management|search_tools|SSO Settings|Settings|tag management,user agent analytics|cloudzero|vantage
        public,model management|Agent Management|UI Settings|memory management|Telemetry|project management
        langfuse_passthrough|jwt_mappings|UI Theme Settings|Fallback Management|Cache Settings
        Coordination Redis Settings|email management|public,providers|public,auto router|public|caching|caching,caching
        Logging Callbacks|moyai|plugins|Router Settings|Audit Logging|public,skills|model_insights|compliance
        adaptive_router|[beta] Agents,public|[beta] MCP,public|public,Claude Code Marketplace|public,[beta] Agents
        UI Session|experimental|rust control plane|Cost Optimization|a2a_registration|vector_store_management|guardrails
        auto router|mcp|prompts,policies|invitation management|Tag Management
    """,
    _FOREIGN: "mcp_rest|mcp_byok_oauth",
}
NO_PROVIDER = {
    tag.strip(): reason for reason, lines in _SKIPPED.items() for line in lines.splitlines() for tag in line.split("|")
    if tag.strip()
}  # fmt: skip
"""Tags of the OpenAPI document whose routes are not asked, and why."""
ASKED = frozenset(
    """
    llm_passthrough|responses|health|vector_stores|videos|containers|assistants|files|batch|evals|fine-tuning
    google genai endpoints,interactions|search|images|google genai endpoints|realtime|gemini_agents|WebSocket
    OpenAI Pass-through,pass-through|chat/completions|completions|embeddings|audio|llm utils|rag|anthropic_skills
    decisions|a2a|agents|rerank|anthropic_passthrough|moderations|ocr|usage_ai|Anthropic Passthrough|pass-through
    """.replace("\n", "|")
    .replace("    ", "")
    .strip("|")
    .split("|")
)
"""Tags of the routes that can reach a provider."""
UNTAGGED = re.compile(
    r"/(mcp|toolset|\{mcp_server_name\}|config|team|provider|debug|robots\.txt|litellm|\.well-known|routes|public|\{mcp_)"
    r"|/$"
)
"""Routes without a tag: settings, documents and tools."""
HIDDEN = (("post", "/queue/chat/completions"),)
"""Routes that the document leaves out."""
UNSAFE = re.compile(r"/health/drain")
"""It ends the process."""
FREE = re.compile(
    r"(get|delete) .*/files|post .*/files$"
    r"|(get|post) .*/batches/\{batch_id\}|post .*/cancel$"
    r"|get .*/(containers|videos|skills|assistants|threads|fine_tuning)|post /v1/skills"
    r"|post .*:countTokens$|post .*/moderations$|post .*/(count_tokens|input_tokens|token_counter)$"
)
"""What providers do not bill: reading, listing and counting."""

AGENT = "answering"
"""An agent that is a model behind LiteLLM's A2A."""
ASK = [{"role": "user", "content": "Say one word."}]
_BODIES = (
    (r"/health/test_connection$", {"mode": "chat"}),
    (
        r"^/a2a/",
        {
            "jsonrpc": "2.0",
            "id": "1",
            "method": "message/send",
            "params": {
                "message": {
                    "kind": "message",
                    "role": "user",
                    "messageId": "m",
                    "parts": [{"kind": "text", "text": "Hi."}],
                },
            },
        },
    ),
    (r"/queue/", {"messages": ASK, "max_completion_tokens": 20, "priority": 1}),
    (r"chat/completions$", {"messages": ASK, "max_completion_tokens": 20}),
    (r"/completions$", {"prompt": "Say one word.", "max_tokens": 20}),
    (r"/responses$", {"input": "Say one word.", "max_output_tokens": 20}),
    (r"/messages$", {"messages": ASK, "max_tokens": 20}),
    (r":(stream)?[gG]enerateContent$|interactions$", {"contents": [{"role": "user", "parts": [{"text": "Hi."}]}]}),
    (r"/embeddings$", {"input": "Hi."}),
    (r"/images/", {"prompt": "A cat."}),
    (r"/audio/speech$", {"input": "Hi.", "voice": "alloy"}),
    (r"/rerank$", {"query": "Hi.", "documents": ["a", "b"]}),
    (r"/ocr$", {"document": {"type": "document_url", "document_url": "https://x.example/a.pdf"}}),
    (r"/batches$", {"input_file_id": "f", "endpoint": "/v1/chat/completions", "completion_window": "24h"}),
    (r"/fine_tuning/jobs$", {"training_file": "f"}),
    (r"/assistants$|/threads", {"assistant_id": "a", "role": "user", "content": "Hi."}),
    (r"/search", {"query": "Hi."}),
    (r".", {"prompt": "Hi.", "input": "Hi.", "query": "Hi.", "name": "x"}),
)


def body_for(path, model):
    """A request that a route can read."""
    fields = next(fields for pattern, fields in _BODIES if re.search(pattern, path))
    if path.startswith("/health/"):
        fields = {**fields, "litellm_params": {"model": model}}
    return {"model": model, **fields}


def url_of(path, model):
    """A path with its parameters filled in."""
    path = re.sub(r"\{model[^}]*\}", model, path).replace("{provider}", "openai")
    path = re.sub(r"\{endpoint[^}]*\}", "v1/chat/completions", path)
    path = path.replace("{agent_id}", AGENT).replace("/health/services", "/health/services?service=slack_budget_alerts")
    return re.sub(r"\{[^}]*\}", "x", path)


def routes_of(document):
    """The routes to ask, and the tags and paths that nobody has looked at."""
    asked, unknown = [*HIDDEN], set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            tag = ",".join(operation.get("tags", []))
            if tag in NO_PROVIDER or UNSAFE.match(path):
                continue
            if tag in ASKED:
                asked.append((method, path))
            elif tag or not UNTAGGED.match(path):
                unknown.add(tag or path)
    return asked, unknown


def routes_without_provider(document):
    """The routes that are left out because of what they do, as far as asking them changes nothing of the proxy's."""
    return [
        (method, path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if (reason := NO_PROVIDER.get(",".join(operation.get("tags", []))))
        and (method in {"get", "head"} or reason == _FOREIGN)
    ]


_REALTIME = "session.update"
_RELAYED = "LiteLLM relays it without running any hook, and keeps it shut until its owner opens it"
_SPEECH = "it is relayed to Deepgram, which turns speech into text, and only with a key of its own"
_VERTEX = "it is relayed to Vertex AI, which is not governed, and only with credentials of its own"
SOCKETS = {
    "/openai/{endpoint:path}": _REALTIME,  # the proxy's own realtime, which is matched first
    "/realtime": _REALTIME, "/v1/realtime": _REALTIME, "/openai/v1/realtime": _REALTIME,
    "/responses": "response.create", "/v1/responses": "response.create",
    "/live/sessions": "session.start", "/v1/live/sessions": "session.start",
    "/openai/v1/live/sessions": "session.start",
}  # fmt: skip
"""Websockets, which stand in no document, and the event that each begins with."""
SHUT_SOCKETS = {
    "/openai_passthrough/{endpoint:path}": _RELAYED,
    "/deepgram/listen": _SPEECH, "/deepgram/v1/listen": _SPEECH,
    "/vertex_ai/live": _VERTEX,
}  # fmt: skip
"""Those by which nothing leaves as long as their owner has not asked for it, and why nothing of ours sees them."""
