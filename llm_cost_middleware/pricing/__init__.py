"""Prices: their sources (``catalogue``), the cost of a usage (``rates``), the most a request can cost (``bound``)."""
