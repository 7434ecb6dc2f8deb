"""Adapters as data: the wanted list is followed while the server serves."""
