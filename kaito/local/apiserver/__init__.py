"""The embedded Kubernetes API server: ``server.ApiServer`` is the way in.

Importing this package imports nothing: the modules are heavy, and the command line must start fast.
"""
