"""Volumes: gives every PersistentVolumeClaim a volume, and takes it back afterwards."""
