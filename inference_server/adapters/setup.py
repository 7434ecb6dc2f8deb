"""Puts an adapter manager together from the server's settings.

In: settings and a started engine. Out: a manager, not started. Its HTTP session is closed when it is stopped.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry

from inference_server.adapters.base import read_base
from inference_server.adapters.fetch import Fetcher
from inference_server.adapters.lastgood import LastGood, by_source
from inference_server.adapters.limits import Limits, engine_rank
from inference_server.adapters.manager import AdapterManager, Pace
from inference_server.adapters.metrics import AdapterMetrics
from inference_server.adapters.slots import Slots
from inference_server.adapters.wanted import ListFile
from inference_server.oci.client import RegistryClient, new_session
from inference_server.oci.credentials import PullSecrets
from inference_server.oci.pull import Puller
from inference_server.protocol import Engine
from inference_server.settings import ServeSettings
from inference_server.sources.store import Store


def make_manager(
    engine: Engine,
    settings: ServeSettings,
    *,
    model_folder: Path | None = None,
    registry: CollectorRegistry = REGISTRY,
    pace: Pace | None = None,
) -> AdapterManager | None:
    """The manager, or None where the settings ask for no adapters. Needs a running event loop.

    ``model_folder`` is where the base model's files are, if not at ``settings.model``.
    """
    if settings.adapters is None:
        return None
    session = new_session()
    metrics = AdapterMetrics(registry)
    last_good = LastGood(settings.cache / "last-good", settings.identity or settings.name)
    found = last_good.read()
    fetcher = Fetcher(
        puller=Puller(
            RegistryClient(session, insecure=settings.insecure_registries), PullSecrets(settings.pull_secrets)
        ),
        store=Store(settings.cache / "adapters"),
        base=read_base(
            model_folder or Path(settings.model), (settings.model, settings.preset or "", settings.name)
        ),
        limits=Limits(max_rank=engine_rank(settings.max_lora_rank)),
        known=by_source(found[1]) if found else {},
        on_bytes=lambda count: metrics.pulled.inc(max(count, 0)),
    )
    return AdapterManager(
        ListFile(settings.adapters),
        fetcher,
        partial(Slots, engine, settings.cache / "slots"),
        last_good,
        metrics=metrics,
        closed=session.close,
        pace=pace,
    )
