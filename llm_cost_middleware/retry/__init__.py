"""Retry: what is known of a failure (``facts``), what it means (``classify``), what to do about it (``policy``).

No SDK is imported here, no time is read, nothing sleeps: exceptions are read by their qualified class names and their
attributes, and time, randomness and state are arguments.
"""
