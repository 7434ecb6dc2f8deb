"""A small OCI registry for this machine, so that tune, push and serve work without anybody else's."""
