"""Model selection: features → call site → policy → tier → the cheapest eligible model of it, with its reasons.

Pure: the caller hands in what it knows (prices, what is available, what a warm cache is worth, random numbers, now).
"""
