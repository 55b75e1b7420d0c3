"""Prompt-cache planning: where a cache mark pays, and how much it is expected to save.

``layout`` reads a request into the boundaries at which a cached prefix can end; ``statistics`` records, by fingerprint
only, which prefixes came back and how soon (``reuse``: prefixes like it); ``planner`` weighs the cost of a write
against its expected saving; ``cache_report`` explains hits and misses afterwards. A plan is written into requests by
their providers (``providers/*/write.py``).
Pure throughout: time, prices, capabilities and statistics are arguments.
"""
