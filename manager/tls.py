"""The TLS settings of a client, which follow their files: certificates are rotated while a process lives.

In: the authorities to trust and a client certificate, as files or as bytes. Out: an ``SSLContext``; after a change
a new one, so that new connections use the new files and old ones end when they are done. A new context is complete
before it takes the place of the old: a pair that does not match, seen in the middle of a rotation, changes
nothing.
"""

from __future__ import annotations

import logging
import ssl
import tempfile
from pathlib import Path

from manager.config import RestConfig
from manager.errors import ConfigError

log = logging.getLogger("kaito.manager.tls")

CHECK_SECONDS = 60.0


class LiveTls:
    """The context to open connections with now, in :attr:`context`.

    Raises:
        ConfigError: the first one cannot be made.
    """

    def __init__(self, config: RestConfig) -> None:
        self._config = config
        files = (config.ca_file if config.ca_data is None else None, *self._pair_files())
        self._files = tuple(file for file in files if file)
        self._seen = self._state()
        self._check_at = float("-inf")
        self.context = self._load()

    def due(self, now: float) -> bool:
        """Whether it is time to call :meth:`refresh`; cheap."""
        return now >= self._check_at

    def refresh(self, now: float) -> bool:
        """Look at the files; True when they have changed and :attr:`context` is another one."""
        self._check_at = now + CHECK_SECONDS
        state = self._state()
        if state == self._seen:
            return False
        self._seen = state
        try:
            self.context = self._load()
        except ConfigError as error:
            log.warning("new TLS files not used, keeping the old ones error=%s", error)
            return False
        log.info("TLS files loaded anew server=%s", self._config.server)
        return True

    def _pair_files(self) -> tuple[str | None, str | None]:
        config = self._config
        return (None, None) if config.client_cert_data else (config.client_cert_file, config.client_key_file)

    def _state(self) -> tuple[object, ...]:
        stamps: list[object] = []
        for file in self._files:
            try:
                found = Path(file).stat()
                stamps.append((found.st_mtime_ns, found.st_size, found.st_ino))
            except OSError:
                stamps.append(None)
        credential = self._config.credential
        return (*stamps, credential.certificate if credential else None)

    def _load(self) -> ssl.SSLContext:
        config = self._config
        try:
            if config.ca_data is not None:
                context = ssl.create_default_context(cadata=config.ca_data.decode("ascii"))
            else:
                context = ssl.create_default_context(cafile=config.ca_file)
            # Authorities of many clusters lack extensions that Python 3.13 insists on; no other client does.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            if not config.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            self._load_pair(context)
        except (OSError, ValueError) as error:
            raise ConfigError(f"the TLS files of {config.server} cannot be used: {error}") from error
        return context

    def _load_pair(self, context: ssl.SSLContext) -> None:
        config = self._config
        pair = config.credential.certificate if config.credential else None
        if pair is None and config.client_cert_data and config.client_key_data:
            pair = (config.client_cert_data, config.client_key_data)
        if pair is not None:
            # The ssl module reads keys from files only; these exist for as long as it reads them.
            with tempfile.TemporaryDirectory(prefix="kaito-tls-") as folder:
                cert, key = Path(folder, "crt"), Path(folder, "key")
                cert.write_bytes(pair[0])
                key.write_bytes(pair[1])
                context.load_cert_chain(cert, key)
        elif config.client_cert_file:
            context.load_cert_chain(config.client_cert_file, config.client_key_file)
