"""The storages: one process (``memory``), one machine (``sqlite``), many machines (``redis``). Blind to each other."""
