"""Fetches the model that the server's settings name.

In: settings, and whom to tell of the progress. Out: a folder on this machine. Owns the HTTP session for that
time.
"""

from __future__ import annotations

import asyncio

from inference_server.oci.client import RegistryClient, new_session
from inference_server.oci.credentials import PullSecrets
from inference_server.oci.pull import Puller
from inference_server.settings import ServeSettings
from inference_server.sources.hub import Hub
from inference_server.sources.model import FetchedModel, ModelFetcher
from inference_server.sources.progress import Meter, OnProgress
from inference_server.sources.store import Store


async def fetch_model(settings: ServeSettings, report: OnProgress) -> FetchedModel:
    """The model's folder; at once where ``settings.model`` is one. Raises FetchError.

    ``HF_TOKEN`` and ``HF_ENDPOINT`` are read from the environment, as the hub's own tools do. A model's Python
    files are fetched only where its code is trusted (--trust-remote-code).
    """
    async with new_session() as session:
        client = RegistryClient(session, insecure=settings.insecure_registries)
        fetcher = ModelFetcher(
            Store(settings.cache / "models"),
            Puller(client, PullSecrets(settings.pull_secrets)),
            Hub(session, code=settings.trusts_code),
        )
        return await fetcher.fetch(settings.model, Meter(report, asyncio.get_running_loop().time))
