"""The Machine controller: one Machine becomes one node, and nothing is left when it goes."""
