"""Garbage collector: deletes what has lost its last owner, and orders deletions of owners and dependents."""
