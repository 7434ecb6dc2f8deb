"""Endpoints and EndpointSlices: which pod addresses stand behind a Service."""
