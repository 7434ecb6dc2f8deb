"""Scheduler: gives each waiting pod the node that suits it best, or says why there is none."""
