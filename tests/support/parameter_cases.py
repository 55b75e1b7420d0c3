"""Every parameter of the SDKs and of LangChain's models, with values worth trying: a new one fails until it is here."""

from __future__ import annotations

SAY = "Say something about Prague."
CALL = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
CHAT_TOOL = {"type": "function", "function": {"name": "weather", "parameters": CALL}}
FLAT_TOOL = {"type": "function", "name": "weather", "parameters": CALL, "strict": False}
CLAUDE_TOOL = {"name": "weather", "input_schema": CALL}
JSON_SCHEMA = {"name": "answer", "schema": CALL, "strict": True}
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

SDK_OWN = frozenset({"self", "model", "timeout", "extra_body", "extra_headers", "extra_query"})
"""Arguments of the SDK's methods that are no parameters of the model."""

CHAT = {
    "audio": [{"audio": {"voice": "alloy", "format": "wav"}, "modalities": ["text", "audio"]}],
    "frequency_penalty": [{"frequency_penalty": 0.5}, {"frequency_penalty": 0}],
    "function_call": [],
    "functions": [],
    "logit_bias": [{"logit_bias": {"50": 1}}],
    "logprobs": [{"logprobs": True}, {"logprobs": False}],
    "max_completion_tokens": [{"max_completion_tokens": 400}],
    "max_tokens": [{"max_tokens": 400}],
    "messages": [{}],
    "metadata": [{"metadata": {"a": "b"}}],
    "modalities": [{"modalities": ["text"]}],
    "moderation": [{"moderation": {"model": "omni"}}],
    "n": [{"n": 2}, {"n": 1}],
    "parallel_tool_calls": [{"parallel_tool_calls": False, "tools": [CHAT_TOOL]}],
    "prediction": [{"prediction": {"type": "content", "content": "x"}}],
    "presence_penalty": [{"presence_penalty": 0.5}],
    "prompt_cache_key": [{"prompt_cache_key": "k"}],
    "prompt_cache_options": [{"prompt_cache_options": {"mode": "explicit"}}],
    "prompt_cache_retention": [{"prompt_cache_retention": "24h"}],
    "reasoning_effort": [{"reasoning_effort": level} for level in EFFORTS],
    "response_format": [
        {"response_format": {"type": "json_schema", "json_schema": JSON_SCHEMA}},
        {"response_format": {"type": "text"}},
    ],
    "safety_identifier": [{"safety_identifier": "s"}],
    "seed": [{"seed": 3}],
    "service_tier": [{"service_tier": tier} for tier in ("auto", "default", "flex", "priority")],
    "stop": [{"stop": ["END"]}],
    "store": [{"store": True}],
    "stream": [{"stream": True}],
    "stream_options": [{"stream": True, "stream_options": {"include_usage": True}}],
    "temperature": [
        {"temperature": 0}, {"temperature": 1}, {"temperature": 1.5}, {"temperature": 0.7, "reasoning_effort": "high"},
        {"temperature": 0.7, "top_p": 0.5}, {"temperature": 0.2, "reasoning_effort": "none"},
    ],
    "tool_choice": [{"tools": [CHAT_TOOL], "tool_choice": "required"}],
    "tools": [{"tools": [CHAT_TOOL]}, {"tools": [CHAT_TOOL], "reasoning_effort": "low"}],
    "top_logprobs": [{"logprobs": True, "top_logprobs": 2}],
    "top_p": [{"top_p": 0.5}],
    "user": [{"user": "u"}],
    "verbosity": [{"verbosity": "low"}, {"verbosity": "medium"}],
    "web_search_options": [{"web_search_options": {}}],
}  # fmt: skip
RESPONSES = {
    "access_programs": [{"access_programs": ["x"]}],
    "background": [{"background": True, "store": True}],
    "background_options": [{"background_options": {}}],
    "context_management": [{"context_management": [{"type": "compaction", "compact_threshold": 50_000}]}],
    "conversation": [],
    "image": [{"image": {}}],
    "include": [{"include": ["reasoning.encrypted_content"]}, {"include": ["message.output_text.logprobs"]}],
    "input": [{}],
    "instructions": [{"instructions": "Be brief."}],
    "max_output_tokens": [{"max_output_tokens": 400}],
    "max_tool_calls": [{"max_tool_calls": 2}],
    "metadata": [{"metadata": {"a": "b"}}],
    "moderation": [{"moderation": {"model": "omni"}}],
    "parallel_tool_calls": [{"parallel_tool_calls": False, "tools": [FLAT_TOOL]}],
    "previous_response_id": [],
    "prompt": [],
    "prompt_cache_key": [{"prompt_cache_key": "k"}],
    "prompt_cache_options": [{"prompt_cache_options": {"mode": "explicit"}}],
    "prompt_cache_retention": [{"prompt_cache_retention": "24h"}],
    "reasoning": [
        *({"reasoning": {"effort": level}} for level in EFFORTS),
        {"reasoning": {"summary": "auto"}}, {"reasoning": {"mode": "pro"}}, {"reasoning": {"mode": "standard"}},
        {"reasoning": {"context": "all_turns"}},
    ],
    "safety_identifier": [{"safety_identifier": "s"}],
    "service_tier": [{"service_tier": tier} for tier in ("auto", "flex", "priority")],
    "store": [{"store": False}],
    "stream": [{"stream": True}],
    "stream_options": [{"stream": True, "stream_options": {"include_obfuscation": False}}],
    "temperature": [{"temperature": 0}, {"temperature": 0.7, "reasoning": {"effort": "high"}}],
    "text": [
        {"text": {"verbosity": "low"}}, {"text": {"format": {"type": "json_schema", **JSON_SCHEMA}}},
    ],
    "tool_choice": [{"tools": [FLAT_TOOL], "tool_choice": "required"}],
    "tools": [{"tools": [FLAT_TOOL]}],
    "top_logprobs": [{"top_logprobs": 2}],
    "top_p": [{"top_p": 0.5}],
    "truncation": [{"truncation": "auto"}],
    "user": [{"user": "u"}],
}  # fmt: skip
THINKING = {"type": "enabled", "budget_tokens": 1_500}
MESSAGES = {
    "betas": [],
    "billing_policy": [],
    "cache_control": [{"cache_control": {"type": "ephemeral"}}],
    "compaction": [],
    "container": [],
    "context_management": [],
    "diagnostics": [{"diagnostics": {}}],
    "fallback_credit_token": [],
    "fallbacks": [],
    "inference_geo": [{"inference_geo": "us"}],
    "max_tokens": [{"max_tokens": 300}],
    "mcp_servers": [],
    "messages": [
        {}, {"messages": [{"role": "user", "content": SAY}, {"role": "assistant", "content": "Prague"}]},
    ],
    "metadata": [{"metadata": {"user_id": "u"}}],
    "output_config": [
        *({"output_config": {"effort": level}} for level in ("low", "medium", "high", "xhigh", "max")),
        {"output_config": {"format": {"type": "json_schema", "schema": CALL}}},
    ],
    "service_tier": [{"service_tier": "auto"}, {"service_tier": "standard_only"}],
    "speed": [{"speed": "fast"}, {"speed": "standard"}],
    "stop_sequences": [{"stop_sequences": ["END"]}],
    "stream": [{"stream": True}],
    "system": [{"system": "Be brief."}],
    "thinking": [
        {"thinking": THINKING, "max_tokens": 3_000}, {"thinking": {"type": "adaptive"}, "max_tokens": 3_000},
        {"thinking": {"type": "adaptive"}, "max_tokens": 900}, {"thinking": {"type": "disabled"}},
        {"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}},
    ],
    "thread": [],
    "tool_choice": [{"tools": [CLAUDE_TOOL], "tool_choice": {"type": "any"}}],
    "tools": [{"tools": [CLAUDE_TOOL]}],
    "user_profile_id": [{"user_profile_id": "p"}],
    "workspace_id": [{"workspace_id": "w"}],
    # no longer in the signature, and still in callers' bodies
    "temperature": [{"temperature": 0}, {"temperature": 0.7, "top_p": 0.9}],
    "top_p": [{"top_p": 0.5}],
    "top_k": [{"top_k": 5}],
}  # fmt: skip
WITHOUT_VALUE = {
    "chat.completions": {"functions", "function_call"},
    "responses": {"previous_response_id", "conversation", "prompt"},
    "messages": {
        "betas", "billing_policy", "compaction", "container", "context_management", "fallback_credit_token",
        "fallbacks", "mcp_servers", "thread",
    },
}  # fmt: skip
"""Parameters that need something at the provider (a stored response, a beta) or a form that the simulator does not
serve: they are classified, and not sent."""

LANGCHAIN_OWN = frozenset({
    "async_client", "cache", "callbacks", "client", "custom_get_token_ids", "default_headers", "default_query",
    "disable_streaming", "disabled_params", "http_async_client", "http_client", "http_socket_options",
    "include_response_headers", "max_retries", "metadata", "model_kwargs", "model_name", "name", "openai_api_base",
    "openai_api_key", "openai_organization", "openai_proxy", "output_version", "profile", "rate_limiter",
    "request_timeout", "root_async_client", "root_client", "stream_chunk_timeout", "stream_usage", "streaming", "tags",
    "tiktoken_model_name", "use_previous_response_id", "use_responses_api", "verbose", "extra_body",
    "anthropic_api_key", "anthropic_api_url", "anthropic_proxy", "default_request_timeout", "model",
    "reuse_last_container",
})  # fmt: skip
"""Declared fields of LangChain's models that are no parameters of the model."""
CHAT_OPENAI = {
    "context_management": [],
    "frequency_penalty": [{"frequency_penalty": 0.5}],
    "include": [{"include": ["reasoning.encrypted_content"]}],
    "logit_bias": [{"logit_bias": {50: 1}}],
    "logprobs": [{"logprobs": True}],
    "max_tokens": [{"max_tokens": 400}],
    "n": [{"n": 2}],
    "presence_penalty": [{"presence_penalty": 0.5}],
    "prompt_cache_options": [],
    "reasoning": [],
    "reasoning_effort": [],
    "seed": [{"seed": 3}],
    "service_tier": [{"service_tier": "priority"}],
    "stop": [{"stop": ["END"]}],
    "store": [{"store": True}],
    "temperature": [{"temperature": 0}, {"temperature": 1.5}],
    "top_logprobs": [{"logprobs": True, "top_logprobs": 2}],
    "top_p": [{"top_p": 0.5}],
    "truncation": [{"truncation": "auto"}],
    "verbosity": [],
}
"""For a model that does not reason, ``gpt-4.1``: a parameter without a value here is one that it does not take."""
REASONING_OPENAI = {
    "reasoning": [{"reasoning": {"effort": "low", "summary": "auto"}}],
    "reasoning_effort": [{"reasoning_effort": level} for level in ("minimal", "high")],
    "verbosity": [{"verbosity": "low"}],
}
"""For one that does, ``gpt-5``."""
CHAT_ANTHROPIC = {
    "betas": [],
    "container": [],
    "context_management": [],
    "inference_geo": [],
    "max_tokens": [{"max_tokens": 400}],
    "mcp_servers": [],
    "output_config": [],
    "reasoning_effort": [],
    "stop_sequences": [{"stop_sequences": ["END"]}],
    "temperature": [{"temperature": 0}],
    "thinking": [{"thinking": THINKING}, {"thinking": {"type": "disabled"}}],
    "top_k": [{"top_k": 5}],
    "top_p": [{"top_p": 0.5}],
    "user_profile_id": [],
}
"""For ``claude-sonnet-4-5``."""
