"""Helpers for tests of this room."""
