"""Methods of a ``litellm.Router`` that can spend and are not governed, and what to do instead of calling them."""

from __future__ import annotations

from collections.abc import Mapping

_EMBED = "embeddings cost little and have no output to bound; watch them in the provider's usage"
_IMAGES = "image prices are not governed; give the project a spend limit at the provider"
_AUDIO = "audio prices are not governed; give the project a spend limit at the provider"
_VIDEO = "video prices are not governed; give the project a spend limit at the provider"
_CHAT = "use completion, acompletion, responses, aresponses or anthropic_messages"

UNGOVERNED: Mapping[str, str] = {
    "embedding": _EMBED,
    "aembedding": _EMBED,
    "image_generation": _IMAGES,
    "aimage_generation": _IMAGES,
    "aimage_edit": _IMAGES,
    "atranscription": _AUDIO,
    "aspeech": _AUDIO,
    "avideo_generation": _VIDEO,
    "video_generation": _VIDEO,
    "avideo_remix": _VIDEO,
    "avideo_edit": _VIDEO,
    "avideo_extension": _VIDEO,
    "text_completion": _CHAT,
    "atext_completion": _CHAT,
    "aadapter_completion": _CHAT,
    "acompact_responses": _CHAT,
    "agenerate_content": _CHAT,
    "generate_content": _CHAT,
    "agenerate_content_stream": _CHAT,
    "generate_content_stream": _CHAT,
    "aadapter_generate_content": _CHAT,
    "allm_passthrough_route": _CHAT,
    "acreate_interaction": _CHAT,
    "create_interaction": _CHAT,
    "arun_thread": _CHAT,
    "arerank": "reranking is not governed",
    "aocr": "document reading is not governed",
    "ocr": "document reading is not governed",
    "asearch": "searches are not governed",
    "search": "searches are not governed",
    "acreate_batch": "use the provider's SDK, wrapped: its batches.create reserves the whole batch",
    "acreate_fine_tuning_job": "training is billed by the job; give the project a spend limit",
    "_arealtime": "realtime sessions bill as they run; give the project a spend limit",
    "acreate_realtime_client_secret": "realtime sessions bill as they run; give the project a spend limit",
    "_aresponses_websocket": "use aresponses",
}
