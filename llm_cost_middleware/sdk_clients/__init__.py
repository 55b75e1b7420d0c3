"""Clients of the ``anthropic`` and the ``openai`` SDK. One generator makes both SDKs, so their hosts share this room.

Every method of such a client that spends ends in the client's own ``post``. That is where a call is governed, so the
resources, helpers and types of the SDK stay exactly what they are. No SDK is imported here.
"""

from llm_cost_middleware.sdk_clients.api import Api
from llm_cost_middleware.sdk_clients.client import govern

__all__ = ["Api", "govern"]
