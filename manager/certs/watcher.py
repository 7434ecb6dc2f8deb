"""Follows a certificate and its key in files, as mounted from a Secret or written by a tool.

In: two paths. Out: :meth:`ServingCertificate.load` whenever their content has changed. Once a second the two files
are looked at (``stat``: inode, time, size, through symbolic links, so that the kubelet's swap of its ``..data``
link and a rename are seen); every ten seconds they are read whatever ``stat`` says. That costs microseconds, needs
no notification and works on every file system. A pair that cannot be used is counted and told, and the one in use
stays: writers that replace two files are seen between the two.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter

from manager.certs.serving import CertificateError, ServingCertificate

log = logging.getLogger("kaito.manager.certs")

DEFAULT_DIR = Path(tempfile.gettempdir()) / "k8s-webhook-server" / "serving-certs"
POLL_SECONDS = 10.0
_LOOK_SECONDS = 1.0

_Mark = tuple[int, int, int, int] | None
_counters: WeakKeyDictionary[CollectorRegistry, tuple[Counter, Counter]] = WeakKeyDictionary()


class CertWatcher:
    """See the module. Run :meth:`run` as a task.

    Args:
        cert: path of the certificate (chain) in PEM.
        key: path of its key.
        serving: who is told; made when None.
        registry: gets ``certwatcher_read_certificate_total`` and ``..._errors_total``, shared by all watchers.
    """

    def __init__(
        self,
        cert: Path = DEFAULT_DIR / "tls.crt",
        key: Path = DEFAULT_DIR / "tls.key",
        *,
        serving: ServingCertificate | None = None,
        registry: CollectorRegistry | None = None,
        poll: float = POLL_SECONDS,
    ) -> None:
        self.serving = serving or ServingCertificate()
        self._cert, self._key = cert, key
        self._poll = poll
        self._reads, self._errors = _metrics(registry or CollectorRegistry())
        self._told = ""

    def __repr__(self) -> str:
        return f"<CertWatcher {self._cert} {self.serving!r}>"

    async def run(self) -> None:
        """Follow the files until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            seen = self._marks()
            self.read()
            read_at = loop.time()
            while self._marks() == seen and loop.time() - read_at < self._poll:
                await asyncio.sleep(min(_LOOK_SECONDS, self._poll))

    def read(self) -> bool:
        """Read the files now; True when a new pair is in use."""
        self._reads.inc()
        try:
            changed = self.serving.load(self._cert.read_bytes(), self._key.read_bytes())
        except (CertificateError, OSError) as error:
            self._errors.inc()
            if str(error) != self._told:  # once per problem: it is met again on every poll
                self._told = str(error)
                log.warning("certificate not read, keeping the old one file=%s error=%s", self._cert, error)
            return False
        self._told = ""
        if changed:
            log.info("certificate loaded file=%s", self._cert)
        return changed

    def _marks(self) -> tuple[_Mark, _Mark]:
        return _mark(self._cert), _mark(self._key)


def _mark(path: Path) -> _Mark:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _metrics(registry: CollectorRegistry) -> tuple[Counter, Counter]:
    if registry not in _counters:
        _counters[registry] = (
            Counter("certwatcher_read_certificate", "Times that certificates were read.", registry=registry),
            Counter("certwatcher_read_certificate_errors", "Times that reading them failed.", registry=registry),
        )
    return _counters[registry]
