"""Serving certificates: held in memory, read from files or from a Secret, replaced while connections are made."""
