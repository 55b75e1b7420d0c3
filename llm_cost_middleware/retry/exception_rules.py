"""Rules by exception class: what the qualified name of a class alone shows of a failure.

A rule is looked up for every class of an exception's MRO, so that an unlisted subclass is read as its nearest listed
base. Most classes of the SDKs stand for a status, and the status and the provider's code show more than the class:
their rules are not decisive, and apply only when nothing else does.

To add an error rule:

- For a code or a message of a provider: a row in ``ERROR_RULES`` of ``providers/NAME/errors.py``, above every more
  general row, and a case in ``tests/unit/providers/test_NAME_errors.py``, which fails for a row without a case and for
  one that an earlier row hides.
- For an exception class: a row here. ``tests/unit/retry/test_exception_classes.py`` walks every class of the installed
  SDKs and hosts, and fails for one without a rule of its own or of a base that means something.
- For a kind of failure: a member of ``FailureKind`` and a rule that leads to it; ``tests/unit/retry/test_classify.py``
  fails for a kind that no rule leads to. Where a retry can help, add it to ``RETRYABLE`` in ``classify``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from llm_cost_middleware.provider import Billed, FailureKind
from llm_cost_middleware.providers import for_each_provider


class ExceptionRule(NamedTuple):
    """Meaning of one exception class."""

    kind: FailureKind
    decisive: bool = True
    """Whether the rule applies before status and code, or only after them."""
    retryable: bool | None = None
    """``None``: by the kind."""
    billed: Billed | None = None
    """``None``: by the facts."""
    sent: bool | None = None
    """Whether the request was sent: ``False`` for a connection that was never made."""
    answered: bool = False
    """Whether an answer had begun to arrive."""


_K = FailureKind
_TRANSPORTS = ("httpx", "httpx2", "httpcore", "httpcore2")

_STATUS_CLASSES: tuple[tuple[FailureKind, str], ...] = (
    (_K.INVALID_REQUEST, "BadRequestError UnprocessableEntityError PreconditionFailedError"),
    (_K.INVALID_REQUEST, "RequestHeaderFieldsTooLargeError InvalidRequestError"),
    (_K.AUTHENTICATION, "AuthenticationError OAuthError"),
    (_K.QUOTA_EXHAUSTED, "PaymentRequiredError"),
    (_K.PERMISSION, "PermissionDeniedError"),
    (_K.NOT_FOUND, "NotFoundError"),
    (_K.TIMEOUT, "RequestTimeoutError GatewayTimeoutError"),
    (_K.CONFLICT, "ConflictError"),
    (_K.REQUEST_TOO_LARGE, "ContentTooLargeError"),
    (_K.RATE_LIMITED, "RateLimitError"),
    (_K.SERVER_ERROR, "InternalServerError HTTPNotImplementedError ServiceUnavailableError BadGatewayError"),
    (_K.OVERLOADED, "OverloadedError"),
)
"""Classes that stand for a status, spelt alike in both SDKs and in LiteLLM."""

_UNSENT = ExceptionRule(_K.CONNECTION, sent=False)
_CUT = ExceptionRule(_K.CONNECTION, sent=True)
_UNUSABLE = ExceptionRule(_K.INVALID_REQUEST, retryable=False, billed="no", sent=False)
_IN_ANSWER = ExceptionRule(_K.UNKNOWN, retryable=False, sent=True, answered=True)
_DELIVERED = ExceptionRule(_K.UNKNOWN, retryable=False, billed="yes", sent=True, answered=True)
_LOCAL = ExceptionRule(_K.UNKNOWN, retryable=False, billed="no", sent=False)
_BROKEN = ExceptionRule(_K.INTERRUPTED_STREAM, decisive=False, sent=True, answered=True)
_NEUTRAL = ExceptionRule(_K.UNKNOWN, decisive=False)
"""A base class without a meaning: status and code decide."""

_TRANSPORT: tuple[tuple[ExceptionRule, str], ...] = (
    (_UNSENT, "ConnectError ProxyError ConnectionNotAvailable"),
    (ExceptionRule(_K.TIMEOUT, sent=False), "ConnectTimeout PoolTimeout"),
    (ExceptionRule(_K.TIMEOUT, sent=True), "ReadTimeout"),
    (ExceptionRule(_K.TIMEOUT), "WriteTimeout TimeoutException"),
    (_CUT, "ReadError RemoteProtocolError CloseError DecodingError SSEError"),
    (ExceptionRule(_K.CONNECTION), "WriteError NetworkError ProtocolError TransportError"),
    (_UNUSABLE, "UnsupportedProtocol LocalProtocolError InvalidURL TooManyRedirects CookieConflict"),
    (_UNUSABLE, "RequestNotRead ResponseNotRead StreamConsumed StreamClosed StreamError"),
    (_NEUTRAL, "HTTPError HTTPStatusError RequestError"),
)

_SINGLE: dict[str, ExceptionRule] = {
    # --- interpreter and event loop: the caller cancels; whether the call is billed is unknown
    "asyncio.exceptions.CancelledError": ExceptionRule(_K.CANCELLED),
    "concurrent.futures._base.CancelledError": ExceptionRule(_K.CANCELLED),
    "trio.Cancelled": ExceptionRule(_K.CANCELLED),
    "builtins.KeyboardInterrupt": ExceptionRule(_K.CANCELLED),
    "builtins.SystemExit": ExceptionRule(_K.CANCELLED),
    "builtins.GeneratorExit": ExceptionRule(_K.CANCELLED),
    "builtins.TimeoutError": ExceptionRule(_K.TIMEOUT),
    "asyncio.exceptions.IncompleteReadError": _CUT,
    "builtins.ConnectionRefusedError": _UNSENT,
    "socket.gaierror": _UNSENT,
    "ssl.SSLCertVerificationError": ExceptionRule(_K.CONNECTION, retryable=False, sent=False),
    "builtins.ConnectionResetError": _CUT,
    "builtins.ConnectionAbortedError": _CUT,
    "builtins.BrokenPipeError": ExceptionRule(_K.CONNECTION),
    "builtins.ConnectionError": ExceptionRule(_K.CONNECTION),
    # --- anthropic
    "anthropic.AnthropicError": _NEUTRAL,
    "anthropic.APIWebhookValidationError": _LOCAL,
    "anthropic.ClientClosedRequestError": ExceptionRule(_K.CANCELLED, retryable=False),
    "anthropic.CredentialsError": ExceptionRule(_K.AUTHENTICATION, billed="no", sent=False),
    "anthropic.RetryableError": ExceptionRule(_K.UNKNOWN, retryable=True),
    "anthropic.lib._extras._common.MissingDependencyError": _UNUSABLE,
    "anthropic.lib.credentials._secrets._NonObjectPayloadError": ExceptionRule(
        _K.AUTHENTICATION, billed="no", sent=False
    ),
    "anthropic.lib.credentials._workload.WorkloadIdentityError": ExceptionRule(
        _K.AUTHENTICATION, billed="no", sent=False
    ),
    "anthropic.lib.foundry.MutuallyExclusiveAuthError": ExceptionRule(_K.AUTHENTICATION, billed="no", sent=False),
    "anthropic.lib.tools._beta_functions.ToolError": _LOCAL,
    "anthropic.lib.tools._file_store.FileStoreError": _LOCAL,
    "anthropic.lib.tools._memories.SessionMemoryError": _LOCAL,
    "anthropic.lib.tools._toolsets._errors.ToolsetUsageError": _LOCAL,
    "anthropic.lib.tools.mcp.UnsupportedMCPValueError": _UNUSABLE,
    # --- openai
    "openai.OpenAIError": _NEUTRAL,
    "openai.LengthFinishReasonError": _DELIVERED,
    "openai.ContentFilterFinishReasonError": _DELIVERED._replace(kind=_K.CONTENT_POLICY),
    "openai.InvalidWebhookSignatureError": _LOCAL,
    "openai.WebSocketConnectionClosedError": ExceptionRule(_K.INTERRUPTED_STREAM, sent=True, answered=True),
    "openai.WebSocketQueueFullError": _LOCAL,
    "openai._AmbiguousModuleClientUsageError": _UNUSABLE,
    "openai._exceptions.SubjectTokenProviderError": ExceptionRule(_K.AUTHENTICATION, billed="no", sent=False),
    "openai._extras._common.MissingDependencyError": _UNUSABLE,
    "openai._legacy_response.MissingStreamClassError": _UNUSABLE,
    "openai.auth._x509._TransientTokenExchangeError": ExceptionRule(
        _K.AUTHENTICATION, retryable=True, billed="no", sent=False
    ),
    "openai.lib._old_api.APIRemovedInV1": _UNUSABLE,
    "openai.lib.azure.MutuallyExclusiveAuthError": ExceptionRule(_K.AUTHENTICATION, billed="no", sent=False),
    "openai.lib.beta.agents._files.AgentFilePreparationError": _LOCAL,
    "openai.lib.beta.agents._files.AgentFileStagingError": _LOCAL,
    "openai.lib.beta.agents._result.AgentOutputParseError": _DELIVERED,
    "openai.lib.beta.agents._result.AgentTurnResultError": _IN_ANSWER,
    "openai.lib.responses_websocket._session.ResponsesWebSocketBufferError": _IN_ANSWER,
    "openai.lib.responses_websocket._session.ResponsesWebSocketError": ExceptionRule(
        _K.SERVER_ERROR, decisive=False, sent=True
    ),
    # its loops around tools: each call in them was an attempt of its own, with a failure of its own
    "openai.lib.browser.BrowserCancelledError": _LOCAL,
    "openai.lib.browser.BrowserError": _LOCAL,
    "openai.lib.computer.ComputerUseError": _LOCAL,
    "openai.lib.decisions_tool_runner.DecisionsToolRunnerError": _LOCAL,
    "openai.lib.responses_tool_runner.ToolRunnerError": _LOCAL,
    # --- langchain: the classes of its adapters inherit from the SDK's as well, which say more
    "langchain_core.exceptions.ModelError": _NEUTRAL,
    "langchain_core.exceptions.LangChainException": _NEUTRAL,
    "langchain_core.exceptions.ModelAuthenticationError": ExceptionRule(_K.AUTHENTICATION, decisive=False),
    "langchain_core.exceptions.ModelPermissionDeniedError": ExceptionRule(_K.PERMISSION, decisive=False),
    "langchain_core.exceptions.ModelInvalidRequestError": ExceptionRule(_K.INVALID_REQUEST, decisive=False),
    "langchain_core.exceptions.ModelNotFoundError": ExceptionRule(_K.NOT_FOUND, decisive=False),
    "langchain_core.exceptions.ModelRateLimitError": ExceptionRule(_K.RATE_LIMITED, decisive=False),
    "langchain_core.exceptions.ModelAPIError": ExceptionRule(_K.SERVER_ERROR, decisive=False),
    "langchain_core.exceptions.ModelConnectionError": ExceptionRule(_K.CONNECTION, decisive=False),
    "langchain_core.exceptions.ModelTimeoutError": ExceptionRule(_K.TIMEOUT, decisive=False),
    "langchain_core.exceptions.ContextOverflowError": ExceptionRule(_K.CONTEXT_OVERFLOW),
    "langchain_core.exceptions.ModelRefusalError": _DELIVERED._replace(kind=_K.CONTENT_POLICY),
    "langchain_core.exceptions.OutputParserException": _DELIVERED,
    "langchain_core.exceptions.TracerException": _LOCAL,
    "langchain_core._security._exceptions.SSRFBlockedError": _UNUSABLE,
    "langchain_core.indexing.api.IndexingException": _LOCAL,
    "langchain_core.language_models.fake.FakeListLLMError": _LOCAL,
    "langchain_core.language_models.fake_chat_models.FakeListChatModelError": _LOCAL,
    "langchain_core.stores.InvalidKeyException": _LOCAL,
    "langchain_core.tools.base.SchemaAnnotationError": _UNUSABLE,
    "langchain_core.tools.base.ToolException": _LOCAL,
    "langchain_core.utils.mustache.ChevronError": _UNUSABLE,
    "langchain.agents.middleware._redaction.PIIDetectionError": ExceptionRule(_K.CONTENT_POLICY),
    "langchain.agents.middleware.model_call_limit.ModelCallLimitExceededError": _LOCAL,
    "langchain.agents.middleware.tool_call_limit.ToolCallLimitExceededError": _LOCAL,
    "langchain.agents.structured_output.StructuredOutputError": _DELIVERED,
    "langchain_litellm.chat_models.litellm.ChatLiteLLMException": _NEUTRAL,
    "langchain_litellm.chat_models.litellm._UndigestableError": _LOCAL,
    "langchain_openai.chat_models.base.OpenAIRefusalError": _DELIVERED._replace(kind=_K.CONTENT_POLICY),
    "langchain_openai.chat_models._client_utils.StreamChunkTimeoutError": ExceptionRule(
        _K.INTERRUPTED_STREAM, sent=True, answered=True
    ),
    "langchain_openai.chatgpt_oauth._ChatGPTOAuthRefreshError": ExceptionRule(
        _K.AUTHENTICATION, billed="no", sent=False
    ),
    "langchain_openai.middleware.openai_moderation.OpenAIModerationError": ExceptionRule(_K.CONTENT_POLICY),
    # --- litellm: it invents statuses, so its own classes are not decisive where the original is chained to them
    "litellm.exceptions.APIError": _NEUTRAL,
    "litellm.exceptions.OpenAIError": _NEUTRAL,
    "litellm.exceptions.APIConnectionError": ExceptionRule(_K.CONNECTION, decisive=False),
    "litellm.exceptions.APIResponseValidationError": _DELIVERED,
    "litellm.exceptions.Timeout": ExceptionRule(_K.TIMEOUT, decisive=False),
    "litellm.exceptions.ContextWindowExceededError": ExceptionRule(_K.CONTEXT_OVERFLOW),
    "litellm.exceptions.ContentPolicyViolationError": ExceptionRule(_K.CONTENT_POLICY),
    "litellm.exceptions.MidStreamFallbackError": ExceptionRule(_K.INTERRUPTED_STREAM, sent=True, answered=True),
    "litellm.exceptions.ImageFetchError": _UNUSABLE,
    "litellm.exceptions.LiteLLMUnknownProvider": _UNUSABLE,
    "litellm.exceptions.UnsupportedParamsError": _UNUSABLE,
    "litellm.exceptions.RejectedRequestError": ExceptionRule(_K.CONTENT_POLICY, billed="no"),
    "litellm.exceptions.VectorStoreSearchError": _LOCAL,
    "litellm.exceptions.BudgetExceededError": ExceptionRule(_K.SPEND_LIMIT, billed="no", sent=False),
    "litellm.exceptions.BlockedPiiEntityError": ExceptionRule(_K.CONTENT_POLICY),
    "litellm.exceptions.GuardrailRaisedException": ExceptionRule(_K.CONTENT_POLICY),
    "litellm.exceptions.ModifyResponseException": ExceptionRule(_K.CONTENT_POLICY),
    "litellm.exceptions.SensitiveDataRouteException": ExceptionRule(_K.CONTENT_POLICY),
    "litellm.exceptions.ModelNotMappedError": _UNUSABLE,
    "litellm.exceptions.MockException": _NEUTRAL,
    "litellm.llms.base_llm.chat.transformation.BaseLLMException": _NEUTRAL,
    "litellm.llms.anthropic.common_utils.AnthropicError": _NEUTRAL,
    "litellm.llms.openai.common_utils.OpenAIError": _NEUTRAL,
    "litellm.types.router.RouterRateLimitError": ExceptionRule(_K.OVERLOADED, billed="no", sent=False),
    "litellm.types.router.RouterRateLimitErrorBasic": ExceptionRule(_K.OVERLOADED, billed="no", sent=False),
    # --- aiohttp, LiteLLM's asynchronous transport
    "aiohttp.client_exceptions.ClientConnectorError": _UNSENT,
    "aiohttp.client_exceptions.ClientConnectorCertificateError": ExceptionRule(
        _K.CONNECTION, retryable=False, sent=False
    ),
    "aiohttp.client_exceptions.ConnectionTimeoutError": ExceptionRule(_K.TIMEOUT, sent=False),
    "aiohttp.client_exceptions.ServerTimeoutError": ExceptionRule(_K.TIMEOUT, sent=True),
    "aiohttp.client_exceptions.ServerConnectionError": _CUT,
    "aiohttp.client_exceptions.ClientPayloadError": ExceptionRule(_K.CONNECTION, sent=True, answered=True),
    "aiohttp.client_exceptions.ClientConnectionError": ExceptionRule(_K.CONNECTION),
    "aiohttp.client_exceptions.ClientResponseError": _NEUTRAL,
    "aiohttp.client_exceptions.ClientHttpProxyError": _UNSENT,
    "aiohttp.client_exceptions.ContentTypeError": _NEUTRAL,
    "aiohttp.client_exceptions.WSServerHandshakeError": _NEUTRAL,
    "aiohttp.client_exceptions.WSMessageTypeError": _LOCAL,
    "aiohttp.client_exceptions.TooManyRedirects": _UNUSABLE,
    "aiohttp.client_exceptions.RedirectClientError": _UNUSABLE,
    "aiohttp.client_exceptions.NonHttpUrlClientError": _UNUSABLE,
    "aiohttp.client_exceptions.UploadAbortedError": ExceptionRule(_K.CONNECTION),
    "aiohttp.client_exceptions.InvalidURL": _UNUSABLE,
    "aiohttp.client_exceptions.ClientError": _NEUTRAL,
    # --- google.auth, which fetches the token of a request to Vertex: before that is sent
    "google.auth.exceptions.GoogleAuthError": ExceptionRule(_K.AUTHENTICATION, billed="no", sent=False),
    "google.auth.exceptions.TransportError": _UNSENT,
    # --- botocore, which signs and sends for Bedrock: what it raises by itself is about the request
    "botocore.exceptions.BotoCoreError": _UNUSABLE,
    "botocore.exceptions.ClientError": _NEUTRAL,
    "botocore.exceptions.EventStreamError": _BROKEN,
    "botocore.exceptions.HTTPClientError": ExceptionRule(_K.CONNECTION),
    "botocore.exceptions.ConnectionError": ExceptionRule(_K.CONNECTION),
    "botocore.exceptions.EndpointConnectionError": _UNSENT,
    "botocore.exceptions.ProxyConnectionError": _UNSENT,
    "botocore.exceptions.SSLError": ExceptionRule(_K.CONNECTION, retryable=False, sent=False),
    "botocore.exceptions.ConnectTimeoutError": ExceptionRule(_K.TIMEOUT, sent=False),
    "botocore.exceptions.ReadTimeoutError": ExceptionRule(_K.TIMEOUT, sent=True),
    "botocore.exceptions.ConnectionClosedError": _CUT,
    "botocore.exceptions.ResponseStreamingError": ExceptionRule(_K.CONNECTION, sent=True, answered=True),
    "botocore.exceptions.IncompleteReadError": ExceptionRule(_K.CONNECTION, sent=True, answered=True),
    "botocore.eventstream.ParserError": ExceptionRule(_K.INTERRUPTED_STREAM, sent=True, answered=True),
    "botocore.parsers.ResponseParserError": _IN_ANSWER,
    "botocore.exceptions.NoCredentialsError": ExceptionRule(_K.AUTHENTICATION, billed="no", sent=False),
    "botocore.exceptions.CredentialRetrievalError": ExceptionRule(_K.AUTHENTICATION, billed="no", sent=False),
    # --- our own: raised before or after an attempt, so a retry cannot help
    "llm_cost_middleware.errors.LLMCostError": _LOCAL,
    "builtins.UnicodeEncodeError": _UNUSABLE,
    "llm_cost_middleware.errors.BudgetExceededError": _UNUSABLE._replace(kind=_K.SPEND_LIMIT),
    "llm_cost_middleware.errors.AttributionError": _UNUSABLE,
    "llm_cost_middleware.errors.ScopePausedError": _UNUSABLE._replace(kind=_K.SPEND_LIMIT),
    "llm_cost_middleware.errors.CircuitOpenError": _UNUSABLE._replace(kind=_K.OVERLOADED),
    "llm_cost_middleware.errors.UnreadableUsageError": _DELIVERED,
    "llm_cost_middleware.errors.ConfigurationError": _UNUSABLE,
    "llm_cost_middleware.errors.InvalidAmountError": _UNUSABLE,
    "llm_cost_middleware.errors.UnsupportedRequestError": _UNUSABLE,
    "llm_cost_middleware.errors.PriceNotFoundError": _UNUSABLE,
    "llm_cost_middleware.errors.MissingExtraError": _UNUSABLE,
}

EXCEPTION_RULES: dict[str, ExceptionRule] = {
    **{
        f"{prefix}.{name}": ExceptionRule(kind, decisive=False)
        for prefix in ("litellm.exceptions",)
        for kind, names in _STATUS_CLASSES
        for name in names.split()
    },
    **{
        f"{transport}.{name}": rule for transport in _TRANSPORTS for rule, names in _TRANSPORT for name in names.split()
    },
    **_SINGLE,
}
"""Rules by qualified class name."""
_SDK: Mapping[str, ExceptionRule] = {
    **{name: ExceptionRule(kind, decisive=False) for kind, names in _STATUS_CLASSES for name in names.split()},
    "APIConnectionError": ExceptionRule(_K.CONNECTION, decisive=False),
    "APITimeoutError": ExceptionRule(_K.TIMEOUT),
    "APIResponseValidationError": _DELIVERED,
    "APIError": _NEUTRAL,
    "APIStatusError": _NEUTRAL,
    "_response.StreamAlreadyConsumed": _DELIVERED,
    "_response.MissingStreamClassError": _UNUSABLE,
}
"""The classes that every SDK of this make has."""


@for_each_provider
def _add_sdk(provider: str) -> None:
    """The SDKs are called as their providers."""
    for name, rule in _SDK.items():
        EXCEPTION_RULES.setdefault(f"{provider}.{name}", rule)


def is_neutral(name: str) -> bool:
    """Whether a class is listed as a base that means nothing by itself."""
    return EXCEPTION_RULES.get(name) == _NEUTRAL
