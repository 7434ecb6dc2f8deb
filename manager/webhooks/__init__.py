"""Admission and conversion webhooks: the server, the reviews, and adapters for validators and defaulters.

A program imports what it needs from the modules: ``server.WebhookServer`` listens, ``admission`` has the protocols
that users implement, ``conversion.Conversions`` translates between versions of a kind.
"""
