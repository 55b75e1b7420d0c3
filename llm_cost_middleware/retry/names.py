"""Exception classes by qualified name: what a class alone says about a failure.

A row is looked up for every class of an exception's MRO, so that a subclass nobody listed is read as its nearest
listed base. Most classes of the SDKs stand for a status, and the status and the provider's code say more than the
class: those rows are *weak*, and speak only when nothing else does. A test walks every exception class of the installed
SDKs and hosts and fails on one that has no row of its own or of a base that means something.
"""

from __future__ import annotations

from typing import NamedTuple

from llm_cost_middleware.provider import Billed, FailureKind


class NameRule(NamedTuple):
    """What the name of an exception class says."""

    kind: FailureKind
    strong: bool = True
    """A strong name decides before status and code, a weak one only after them."""
    retryable: bool | None = None
    """``None``: as the kind says."""
    billed: Billed | None = None
    """``None``: as the facts say."""
    sent: bool | None = None
    """Whether the request had left: ``False`` for a connection that was never made."""
    answered: bool = False
    """The answer had begun."""


_K = FailureKind
_SDKS = ("anthropic", "openai")
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

_UNSENT = NameRule(_K.CONNECTION, sent=False)
_CUT = NameRule(_K.CONNECTION, sent=True)
_UNUSABLE = NameRule(_K.INVALID_REQUEST, retryable=False, billed="no", sent=False)
_IN_ANSWER = NameRule(_K.UNKNOWN, retryable=False, sent=True, answered=True)
_DELIVERED = NameRule(_K.UNKNOWN, retryable=False, billed="yes", sent=True, answered=True)
_LOCAL = NameRule(_K.UNKNOWN, retryable=False, billed="no", sent=False)
_NAMELESS = NameRule(_K.UNKNOWN, strong=False)
"""Says nothing: a base class. Status and code decide, or nobody does."""

_TRANSPORT: tuple[tuple[NameRule, str], ...] = (
    (_UNSENT, "ConnectError ProxyError ConnectionNotAvailable"),
    (NameRule(_K.TIMEOUT, sent=False), "ConnectTimeout PoolTimeout"),
    (NameRule(_K.TIMEOUT, sent=True), "ReadTimeout"),
    (NameRule(_K.TIMEOUT), "WriteTimeout TimeoutException"),
    (_CUT, "ReadError RemoteProtocolError CloseError DecodingError SSEError"),
    (NameRule(_K.CONNECTION), "WriteError NetworkError ProtocolError TransportError"),
    (_UNUSABLE, "UnsupportedProtocol LocalProtocolError InvalidURL TooManyRedirects CookieConflict"),
    (_UNUSABLE, "RequestNotRead ResponseNotRead StreamConsumed StreamClosed StreamError"),
    (_NAMELESS, "HTTPError HTTPStatusError RequestError"),
)

_SINGLE: dict[str, NameRule] = {
    # --- interpreter and event loop: the caller wants out; nothing is known of the bill
    "asyncio.exceptions.CancelledError": NameRule(_K.CANCELLED),
    "concurrent.futures._base.CancelledError": NameRule(_K.CANCELLED),
    "trio.Cancelled": NameRule(_K.CANCELLED),
    "builtins.KeyboardInterrupt": NameRule(_K.CANCELLED),
    "builtins.SystemExit": NameRule(_K.CANCELLED),
    "builtins.GeneratorExit": NameRule(_K.CANCELLED),
    "builtins.TimeoutError": NameRule(_K.TIMEOUT),
    "asyncio.exceptions.IncompleteReadError": _CUT,
    "builtins.ConnectionRefusedError": _UNSENT,
    "socket.gaierror": _UNSENT,
    "ssl.SSLCertVerificationError": NameRule(_K.CONNECTION, retryable=False, sent=False),
    "builtins.ConnectionResetError": _CUT,
    "builtins.ConnectionAbortedError": _CUT,
    "builtins.BrokenPipeError": NameRule(_K.CONNECTION),
    "builtins.ConnectionError": NameRule(_K.CONNECTION),
    # --- both SDKs
    **{
        f"{sdk}.{name}": rule
        for sdk in _SDKS
        for name, rule in {
            "APIConnectionError": NameRule(_K.CONNECTION, strong=False),
            "APITimeoutError": NameRule(_K.TIMEOUT),
            "APIResponseValidationError": _DELIVERED,
            "APIError": _NAMELESS,
            "APIStatusError": _NAMELESS,
            "_response.StreamAlreadyConsumed": _DELIVERED,
            "_response.MissingStreamClassError": _UNUSABLE,
        }.items()
    },
    # --- anthropic
    "anthropic.AnthropicError": _NAMELESS,
    "anthropic.APIWebhookValidationError": _LOCAL,
    "anthropic.ClientClosedRequestError": NameRule(_K.CANCELLED, retryable=False),
    "anthropic.CredentialsError": NameRule(_K.AUTHENTICATION, billed="no", sent=False),
    "anthropic.RetryableError": NameRule(_K.UNKNOWN, retryable=True),
    "anthropic.lib._extras._common.MissingDependencyError": _UNUSABLE,
    "anthropic.lib.credentials._secrets._NonObjectPayloadError": NameRule(_K.AUTHENTICATION, billed="no", sent=False),
    "anthropic.lib.credentials._workload.WorkloadIdentityError": NameRule(_K.AUTHENTICATION, billed="no", sent=False),
    "anthropic.lib.foundry.MutuallyExclusiveAuthError": NameRule(_K.AUTHENTICATION, billed="no", sent=False),
    "anthropic.lib.tools._beta_functions.ToolError": _LOCAL,
    "anthropic.lib.tools._file_store.FileStoreError": _LOCAL,
    "anthropic.lib.tools._memories.SessionMemoryError": _LOCAL,
    "anthropic.lib.tools._toolsets._errors.ToolsetUsageError": _LOCAL,
    "anthropic.lib.tools.mcp.UnsupportedMCPValueError": _UNUSABLE,
    # --- openai
    "openai.OpenAIError": _NAMELESS,
    "openai.LengthFinishReasonError": _DELIVERED,
    "openai.ContentFilterFinishReasonError": _DELIVERED._replace(kind=_K.CONTENT_POLICY),
    "openai.InvalidWebhookSignatureError": _LOCAL,
    "openai.WebSocketConnectionClosedError": NameRule(_K.INTERRUPTED_STREAM, sent=True, answered=True),
    "openai.WebSocketQueueFullError": _LOCAL,
    "openai._AmbiguousModuleClientUsageError": _UNUSABLE,
    "openai._exceptions.SubjectTokenProviderError": NameRule(_K.AUTHENTICATION, billed="no", sent=False),
    "openai._extras._common.MissingDependencyError": _UNUSABLE,
    "openai._legacy_response.MissingStreamClassError": _UNUSABLE,
    "openai.auth._x509._TransientTokenExchangeError": NameRule(
        _K.AUTHENTICATION, retryable=True, billed="no", sent=False
    ),
    "openai.lib._old_api.APIRemovedInV1": _UNUSABLE,
    "openai.lib.azure.MutuallyExclusiveAuthError": NameRule(_K.AUTHENTICATION, billed="no", sent=False),
    "openai.lib.beta.agents._files.AgentFilePreparationError": _LOCAL,
    "openai.lib.beta.agents._files.AgentFileStagingError": _LOCAL,
    "openai.lib.beta.agents._result.AgentOutputParseError": _DELIVERED,
    "openai.lib.beta.agents._result.AgentTurnResultError": _IN_ANSWER,
    "openai.lib.responses_websocket._session.ResponsesWebSocketBufferError": _IN_ANSWER,
    "openai.lib.responses_websocket._session.ResponsesWebSocketError": NameRule(
        _K.SERVER_ERROR, strong=False, sent=True
    ),
    # its loops around tools: each call in them was an attempt of its own, with a failure of its own
    "openai.lib.browser.BrowserCancelledError": _LOCAL,
    "openai.lib.browser.BrowserError": _LOCAL,
    "openai.lib.computer.ComputerUseError": _LOCAL,
    "openai.lib.decisions_tool_runner.DecisionsToolRunnerError": _LOCAL,
    "openai.lib.responses_tool_runner.ToolRunnerError": _LOCAL,
    # --- langchain: the classes of its adapters inherit from the SDK's as well, which say more
    "langchain_core.exceptions.ModelError": _NAMELESS,
    "langchain_core.exceptions.LangChainException": _NAMELESS,
    "langchain_core.exceptions.ModelAuthenticationError": NameRule(_K.AUTHENTICATION, strong=False),
    "langchain_core.exceptions.ModelPermissionDeniedError": NameRule(_K.PERMISSION, strong=False),
    "langchain_core.exceptions.ModelInvalidRequestError": NameRule(_K.INVALID_REQUEST, strong=False),
    "langchain_core.exceptions.ModelNotFoundError": NameRule(_K.NOT_FOUND, strong=False),
    "langchain_core.exceptions.ModelRateLimitError": NameRule(_K.RATE_LIMITED, strong=False),
    "langchain_core.exceptions.ModelAPIError": NameRule(_K.SERVER_ERROR, strong=False),
    "langchain_core.exceptions.ModelConnectionError": NameRule(_K.CONNECTION, strong=False),
    "langchain_core.exceptions.ModelTimeoutError": NameRule(_K.TIMEOUT, strong=False),
    "langchain_core.exceptions.ContextOverflowError": NameRule(_K.CONTEXT_OVERFLOW),
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
    "langchain.agents.middleware._redaction.PIIDetectionError": NameRule(_K.CONTENT_POLICY),
    "langchain.agents.middleware.model_call_limit.ModelCallLimitExceededError": _LOCAL,
    "langchain.agents.middleware.tool_call_limit.ToolCallLimitExceededError": _LOCAL,
    "langchain.agents.structured_output.StructuredOutputError": _DELIVERED,
    "langchain_litellm.chat_models.litellm.ChatLiteLLMException": _NAMELESS,
    "langchain_litellm.chat_models.litellm._UndigestableError": _LOCAL,
    "langchain_openai.chat_models.base.OpenAIRefusalError": _DELIVERED._replace(kind=_K.CONTENT_POLICY),
    "langchain_openai.chat_models._client_utils.StreamChunkTimeoutError": NameRule(
        _K.INTERRUPTED_STREAM, sent=True, answered=True
    ),
    "langchain_openai.chatgpt_oauth._ChatGPTOAuthRefreshError": NameRule(_K.AUTHENTICATION, billed="no", sent=False),
    "langchain_openai.middleware.openai_moderation.OpenAIModerationError": NameRule(_K.CONTENT_POLICY),
    # --- litellm: it invents statuses, so its own classes are weak where the original can be found behind them
    "litellm.exceptions.APIError": _NAMELESS,
    "litellm.exceptions.OpenAIError": _NAMELESS,
    "litellm.exceptions.APIConnectionError": NameRule(_K.CONNECTION, strong=False),
    "litellm.exceptions.APIResponseValidationError": _DELIVERED,
    "litellm.exceptions.Timeout": NameRule(_K.TIMEOUT, strong=False),
    "litellm.exceptions.ContextWindowExceededError": NameRule(_K.CONTEXT_OVERFLOW),
    "litellm.exceptions.ContentPolicyViolationError": NameRule(_K.CONTENT_POLICY),
    "litellm.exceptions.MidStreamFallbackError": NameRule(_K.INTERRUPTED_STREAM, sent=True, answered=True),
    "litellm.exceptions.ImageFetchError": _UNUSABLE,
    "litellm.exceptions.LiteLLMUnknownProvider": _UNUSABLE,
    "litellm.exceptions.UnsupportedParamsError": _UNUSABLE,
    "litellm.exceptions.RejectedRequestError": NameRule(_K.CONTENT_POLICY, billed="no"),
    "litellm.exceptions.VectorStoreSearchError": _LOCAL,
    "litellm.exceptions.BudgetExceededError": NameRule(_K.SPEND_LIMIT, billed="no", sent=False),
    "litellm.exceptions.BlockedPiiEntityError": NameRule(_K.CONTENT_POLICY),
    "litellm.exceptions.GuardrailRaisedException": NameRule(_K.CONTENT_POLICY),
    "litellm.exceptions.ModifyResponseException": NameRule(_K.CONTENT_POLICY),
    "litellm.exceptions.SensitiveDataRouteException": NameRule(_K.CONTENT_POLICY),
    "litellm.exceptions.ModelNotMappedError": _UNUSABLE,
    "litellm.exceptions.MockException": _NAMELESS,
    "litellm.llms.base_llm.chat.transformation.BaseLLMException": _NAMELESS,
    "litellm.llms.anthropic.common_utils.AnthropicError": _NAMELESS,
    "litellm.llms.openai.common_utils.OpenAIError": _NAMELESS,
    "litellm.types.router.RouterRateLimitError": NameRule(_K.OVERLOADED, billed="no", sent=False),
    "litellm.types.router.RouterRateLimitErrorBasic": NameRule(_K.OVERLOADED, billed="no", sent=False),
    # --- aiohttp, LiteLLM's asynchronous transport
    "aiohttp.client_exceptions.ClientConnectorError": _UNSENT,
    "aiohttp.client_exceptions.ClientConnectorCertificateError": NameRule(_K.CONNECTION, retryable=False, sent=False),
    "aiohttp.client_exceptions.ConnectionTimeoutError": NameRule(_K.TIMEOUT, sent=False),
    "aiohttp.client_exceptions.ServerTimeoutError": NameRule(_K.TIMEOUT, sent=True),
    "aiohttp.client_exceptions.ServerConnectionError": _CUT,
    "aiohttp.client_exceptions.ClientPayloadError": NameRule(_K.CONNECTION, sent=True, answered=True),
    "aiohttp.client_exceptions.ClientConnectionError": NameRule(_K.CONNECTION),
    "aiohttp.client_exceptions.ClientResponseError": _NAMELESS,
    "aiohttp.client_exceptions.ClientHttpProxyError": _UNSENT,
    "aiohttp.client_exceptions.ContentTypeError": _NAMELESS,
    "aiohttp.client_exceptions.WSServerHandshakeError": _NAMELESS,
    "aiohttp.client_exceptions.WSMessageTypeError": _LOCAL,
    "aiohttp.client_exceptions.TooManyRedirects": _UNUSABLE,
    "aiohttp.client_exceptions.RedirectClientError": _UNUSABLE,
    "aiohttp.client_exceptions.NonHttpUrlClientError": _UNUSABLE,
    "aiohttp.client_exceptions.UploadAbortedError": NameRule(_K.CONNECTION),
    "aiohttp.client_exceptions.InvalidURL": _UNUSABLE,
    "aiohttp.client_exceptions.ClientError": _NAMELESS,
    # --- our own: none of them is an attempt, and none gets better by being repeated
    "llm_cost_middleware.errors.LLMCostError": _LOCAL,
    "builtins.UnicodeEncodeError": _UNUSABLE,
    "llm_cost_middleware.errors.BudgetExceededError": _UNUSABLE._replace(kind=_K.SPEND_LIMIT),
    "llm_cost_middleware.errors.CircuitOpenError": _UNUSABLE._replace(kind=_K.OVERLOADED),
    "llm_cost_middleware.errors.UnreadableUsageError": _DELIVERED,
    "llm_cost_middleware.errors.ConfigurationError": _UNUSABLE,
    "llm_cost_middleware.errors.InvalidAmountError": _UNUSABLE,
    "llm_cost_middleware.errors.UnsupportedRequestError": _UNUSABLE,
    "llm_cost_middleware.errors.PriceNotFoundError": _UNUSABLE,
    "llm_cost_middleware.errors.MissingExtraError": _UNUSABLE,
}

EXCEPTIONS: dict[str, NameRule] = {
    **{
        f"{prefix}.{name}": NameRule(kind, strong=False)
        for prefix in (*_SDKS, "litellm.exceptions")
        for kind, names in _STATUS_CLASSES
        for name in names.split()
    },
    **{
        f"{transport}.{name}": rule for transport in _TRANSPORTS for rule, names in _TRANSPORT for name in names.split()
    },
    **_SINGLE,
}
"""Qualified class name to what it says."""

SAYS_NOTHING = frozenset(name for name, rule in EXCEPTIONS.items() if rule == _NAMELESS)
"""Base classes that are mapped, but mean nothing by themselves."""
