"""Retry: facts of a failure (``facts``), its kind (``classify``), what to do about it (``decision``).

No SDK is imported here, no clock is read, nothing sleeps: exceptions are read by their qualified class names and their
attributes; time, randomness and state are arguments.
"""
