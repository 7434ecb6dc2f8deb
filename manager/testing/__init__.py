"""Tools for testing operators against real API servers: the counterpart of the ecosystem's envtest."""
