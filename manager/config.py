"""How to reach one API server, as plain data. Nothing here reads files or environment: see ``kubeconfig``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RestConfig:
    """The address of an API server and the credentials for it.

    Attributes:
        server: base URL, https unless it is a test.
        ca_data: PEM of the authorities to trust; None trusts the system's.
        token: a bearer token; never logged, and not part of the repr.
        client_cert_file: PEM file of a client certificate, with ``client_key_file``.
        verify: False skips the check of the server's certificate (a kubeconfig's insecure-skip-tls-verify).
        tls_server_name: the name to expect in the certificate, where it is not the URL's host.
        namespace: of the context, for commands that are given none.
        auth_header: called before every request for the Authorization header; refreshes what must be refreshed.
            It wins over ``token``.
    """

    server: str
    ca_data: bytes | None = None
    token: str | None = field(default=None, repr=False)
    client_cert_file: str | None = None
    client_key_file: str | None = None
    verify: bool = True
    tls_server_name: str | None = None
    namespace: str = "default"
    auth_header: Callable[[], Awaitable[str | None]] | None = field(default=None, repr=False)
    proxy: str | None = None
