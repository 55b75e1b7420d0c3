"""Prices: their sources (``catalogue``), the cost of a usage (``rates``), the most a request can cost (``bound``).

To add a model or a price (``tests/unit/test_model_tables.py`` fails for a forgotten step):

1. Price: one dated ``[[price]]`` block with its source in ``overlay.toml``, unless genai-prices has it. A changed price
   is a new block with ``valid_from``, never an edit; pin it in ``tests/unit/pricing/test_overlay.py``.
2. Limits: a ``[[model]]`` row in ``limits/<provider>.toml``; for Anthropic also ``min_cache_tokens`` and, where
   it takes images, ``image_tokens`` and ``pixels_per_token``: without them an image is held at the whole context.
3. Only for a default model of a tier: a card in ``simulator/prices/<provider>.toml``, from the provider's price page.
"""
