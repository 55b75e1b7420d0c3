"""Model selection: features → call site → policy → tier → its cheapest eligible model, with the reasons.

Pure: prices, availability, cache savings, randomness and time are arguments. Policies are learned in ``learning``,
which nothing here imports.
"""
