"""The certificate that a TLS server shows, which may be replaced at any moment.

In: PEM pairs, from a watcher of files or from the rotator. Out: one ``ssl.SSLContext`` for the listener, whose
handshakes always use the newest good pair. A new pair is loaded into a context of its own; only when that has
succeeded is it handed to handshakes, in one assignment. So a bad pair changes nothing, and a pair of another key
type never leaves the old certificate behind, which happens when one live context is loaded twice. Keys stay in
memory: OpenSSL's interface wants a file, and gets one that has no name.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from manager.errors import ManagerError

log = logging.getLogger("kaito.manager.certs")

OnChange = Callable[[bytes], None]
"""Called with the new certificate (PEM, without its key)."""


class CertificateError(ManagerError):
    """A certificate and key that cannot be used together; the message never shows the key."""


class ServingCertificate:
    """See the module.

    Args:
        client_ca: PEM of the authorities whose clients alone may connect; None lets everybody.
    """

    def __init__(self, *, client_ca: bytes | None = None) -> None:
        self._client_ca = client_ca
        self._pair: tuple[bytes, bytes] | None = None
        self._current: ssl.SSLContext | None = None
        self._loaded = asyncio.Event()
        self._callbacks: list[OnChange] = []
        self.context = self._new_context()
        """For the listener; it works once a pair has been loaded."""
        self.context.sni_callback = self._choose

    def __repr__(self) -> str:
        return f"<ServingCertificate {'loaded' if self._pair else 'empty'}>"

    @property
    def certificate(self) -> bytes | None:
        """The certificate in use, as PEM."""
        return self._pair[0] if self._pair else None

    def on_change(self, callback: OnChange) -> None:
        """Have the callback called after every change."""
        self._callbacks.append(callback)

    async def ready(self) -> None:
        """Wait until there is a certificate."""
        await self._loaded.wait()

    def load(self, cert: bytes, key: bytes) -> bool:
        """Use this pair from now on; False when it is in use already.

        Raises:
            CertificateError: it is unusable; the one in use stays.
        """
        if self._pair == (cert, key):
            return False
        fresh = self._new_context()
        try:
            with _unnamed_file(cert.rstrip() + b"\n" + key) as path:
                fresh.load_cert_chain(path, password="")
        except (ssl.SSLError, OSError, ValueError) as error:
            raise CertificateError(f"the certificate and its key cannot be used: {error}") from error
        self._current = fresh
        self._pair = (cert, key)
        self._loaded.set()
        for callback in self._callbacks:
            try:
                callback(cert)
            except Exception:
                log.exception("callback of a new certificate failed")
        return True

    def _new_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if self._client_ca is not None:
            try:
                context.load_verify_locations(cadata=self._client_ca.decode())
            except (ssl.SSLError, ValueError) as error:
                raise CertificateError(f"the authorities of clients cannot be used: {error}") from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> int | None:
        if self._current is None:
            return int(ssl.ALERT_DESCRIPTION_INTERNAL_ERROR)
        connection.context = self._current
        return None


@contextmanager
def _unnamed_file(content: bytes) -> Iterator[str]:
    """A path that reads as this content: memory where the system has such files, else a private temporary file."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").exists():
        descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.NamedTemporaryFile() as file:  # mode 0600
        file.write(content)
        file.flush()
        yield file.name
