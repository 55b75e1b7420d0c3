"""Vertex AI of Google Cloud, for Claude: the model in the path, Google's keys and errors around Anthropic's Messages.

Sources: "Claude on Vertex AI" of the provider, "Request predictions with Claude models" of Google's documentation,
the SDK's ``lib/vertex``, and error bodies as users have quoted them (`errors`).
"""
