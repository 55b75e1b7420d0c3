"""Storages: for one process (``memory``), one machine (``sqlite``), several machines (``redis``)."""
