"""OCI registries, as far as a server that pulls needs them: manifests, resumable blobs, safe unpacking."""
