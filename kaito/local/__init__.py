"""The embedded cluster: an API server, the controllers of Kubernetes and a node agent, for a laptop and for tests.

It is a development and demonstration tool. Nothing outside this package knows that it exists.
"""
