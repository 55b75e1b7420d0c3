"""Anthropic side: ``/v1/messages``, ``/v1/messages/count_tokens``, ``/v1/messages/batches``."""
