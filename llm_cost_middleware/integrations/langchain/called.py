"""The names that a chat model of LangChain calls: a provider's models, or deployments of Azure.

``AzureChatOpenAI`` sends chats to its ``azure_deployment``, whatever its ``model`` says; responses to the resource,
where ``model`` is the deployment, and without one ``azure_deployment`` (langchain-openai, ``_get_request_payload``).
Beside a deployment ``model`` is "the name of the deployed OpenAI model", so that the configuration need not say it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.config.sent_names import SentNames
from llm_cost_middleware.platform import PLATFORMS, find_platform
from llm_cost_middleware.request import CallRequest, ModelRef
from llm_cost_middleware.sdk_clients.single_attempt import client_of

CLIENT_FIELDS = ("client", "async_client", "root_client", "root_async_client")
"""Where LangChain's models of OpenAI hold what they send through."""
_FILLED_IN = ("openai_api_key", "azure_endpoint", "openai_api_version", "azure_ad_token")
"""What one of Azure's takes from the environment, where nobody sets it."""


def held_client(model: Any) -> Any:
    """A client of the openai SDK that a model holds; ``None`` without one."""
    held = (client_of(vars(model).get(name)) for name in CLIENT_FIELDS)
    return next((client for client in held if client is not None), None)


class ModelNames:
    """What the names of a model stand for, and by which fields its class calls another target.

    Args:
        model: The model.
        config: Says which model stands behind a deployment.
        provider: Whom it calls: a provider or a platform.
    """

    def __init__(self, model: Any, config: CostConfig, provider: str) -> None:
        self._config, self._provider, self._own = config, provider, getattr(model, "model_name", None)
        deployment = getattr(model, "deployment_name", None)
        self.called = str(self._own or getattr(model, "model", None) or deployment or "")
        """What a request says where it names its model."""
        self._is_platforms = provider in PLATFORMS
        client = held_client(model) if self._is_platforms else None
        names = (SentNames(config, provider, client, endpoint) for endpoint in ("chat.completions", "responses"))
        self._chat, self._responses = names
        self.bare_streams = self._chat.bare_streams
        """Nothing is added to a stream: the version of the API refuses what asks for its usage."""
        self._tools_lead_to_responses = self._is_platforms and model._use_responses_api({"tools": [_TOOL]})  # noqa: SLF001 - its own rule
        # what LangChain made of the fields can be made again, for another deployment
        self._can_move = bool(deployment) and getattr(model, "root_client", None) is not None
        self._filled_in = {name: getattr(model, name, None) for name in _FILLED_IN} if self._can_move else {}
        self.home: ModelRef | None = None
        """Its own target, once its settings were read."""

    def reach(self, endpoint: str) -> frozenset[str]:
        """What it can call, as ``HostCall.providers``."""
        reach = (self._responses if endpoint == "responses" else self._chat).reach
        if self._can_move or self._provider in reach:
            return frozenset({self._provider})
        return frozenset({str(self.home)})

    def read(self, request: CallRequest) -> CallRequest:
        """A request in its provider's form, under what its name stands for."""
        if not self._is_platforms:
            return request
        led = request.server_tools or (request.tools and self._tools_lead_to_responses)
        names = self._responses if led or request.endpoint == "responses" else self._chat
        read, told = names.read(request, ""), self._config.platforms[self._provider]
        platform = find_platform(self._provider)
        stated = str(ModelRef(read.provider, read.model)) in self._config.prices
        if not self._own or platform is None or stated or platform.parse(read.model):
            return read
        behind = told.target(self._own)  # what its owner says is deployed
        return read if platform.parse(behind.model) is None else read._replace(model=behind.model)

    def moves(self, target: ModelRef) -> bool:
        """Whether a target is another deployment than the one that the model's clients are bound to."""
        return self._can_move and target.provider == self._provider and target.plain != self.home

    def settings(self, target: ModelRef) -> Mapping[str, Any]:
        """The fields by which a model of the target's class calls it."""
        if target.provider == "anthropic":
            return {"model": target.model}
        if not self._is_platforms or target.provider != self._provider:
            return {"model_name": target.model}
        if target.plain == self.home:
            return {"model_name": self._own}
        wire = self._responses.written(target, self.called)
        return (
            {**self._filled_in, "deployment_name": wire, "model_name": wire} if self._can_move else {"model_name": wire}
        )


_TOOL = {"type": "function", "function": {"name": "any", "parameters": {}}}
