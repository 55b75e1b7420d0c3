"""Observers that ship with the package. Each receives every event and may not change anything."""
