"""Deployment: moves from one ReplicaSet to the next without dropping below what was promised."""
