"""OpenAI's endpoints as `Dialect`s."""

from llm_cost_middleware.simulator.reading import Dialect

from . import chat_reply
from .chat_request import read_chat

CHAT = Dialect(
    "openai",
    "chat/completions",
    "chatcmpl-",
    29,
    read_chat,
    chat_reply.completion,
    chat_reply.frames,
    chat_reply.error_frame,
)
