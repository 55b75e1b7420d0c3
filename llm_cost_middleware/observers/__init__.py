"""Observers that ship with the package. Each is told of every event and may not change anything."""
