"""Webhooks that the API server calls: which concern a request, how they are asked, what their answers change."""
