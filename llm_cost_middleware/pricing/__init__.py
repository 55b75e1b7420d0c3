"""Prices: where they come from (catalogue), what a usage costs (rates), and the most a request can cost (bound)."""
