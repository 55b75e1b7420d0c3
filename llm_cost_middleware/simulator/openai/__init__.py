"""OpenAI side: ``/v1/chat/completions``, ``/v1/responses``, ``/v1/batches``, ``/v1/files``."""
