"""The metrics server's certificate: that of a folder, followed as it is replaced, or one of its own making.

In: a folder that may hold ``tls.crt`` and ``tls.key``. Out: a ``ServingCertificate``, and the watcher to run
beside the server if there are files. A certificate made here is in memory only: scrapers that verify need files,
the others are content with encryption, as controller-runtime's metrics server offers it.
"""

from __future__ import annotations

import datetime as dt
import socket
import tempfile
from pathlib import Path

from prometheus_client import CollectorRegistry

from manager.certs.pems import make_authority, make_serving
from manager.certs.serving import ServingCertificate
from manager.certs.watcher import CertWatcher
from manager.errors import ConfigError

DEFAULT_DIR = Path(tempfile.gettempdir()) / "k8s-metrics-server" / "serving-certs"
_DAYS = 365


def certificate(folder: Path | None, registry: CollectorRegistry) -> tuple[ServingCertificate, CertWatcher | None]:
    """The certificate to serve with.

    Args:
        folder: None looks in the usual place, and is content with nothing there.

    Raises:
        ConfigError: a folder was named and its files cannot be used.
    """
    place = folder or DEFAULT_DIR
    files = place / "tls.crt", place / "tls.key"
    if folder is None and not all(file.exists() for file in files):
        return _made(), None
    watcher = CertWatcher(*files, registry=registry)
    if not watcher.read():
        raise ConfigError(f"the certificate of {place} (tls.crt, tls.key) cannot be used; the log says why")
    return watcher.serving, watcher


def _made() -> ServingCertificate:
    now = dt.datetime.now(dt.UTC)
    times = {"not_before": now - dt.timedelta(hours=1), "not_after": now + dt.timedelta(days=_DAYS)}
    names = sorted({"localhost", socket.gethostname()})
    pair = make_serving(make_authority("metrics", **times), names, **times)
    serving = ServingCertificate()
    serving.load(pair.cert, pair.key)
    return serving
