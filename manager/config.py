"""How to reach one API server, as plain data. Nothing here reads files or environment: see ``kubeconfig``.

Files are named here, not read, so that whoever opens connections can read them again when they change. Secrets are
not part of any repr.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from manager.credentials import Credential


@dataclass(frozen=True)
class RestConfig:
    """The address of an API server and the credentials for it.

    Attributes:
        server: base URL, https unless it is a test.
        ca_data: PEM of the authorities to trust; it wins over ``ca_file``. With neither, the system's are trusted.
        ca_file: PEM file of the authorities to trust; read again when it changes.
        token: a bearer token that never changes.
        client_cert_file: PEM file of a client certificate, with ``client_key_file``; read again when one changes.
        client_cert_data: the same as PEM, with ``client_key_data``; it wins over the files.
        verify: False skips the check of the server's certificate (a kubeconfig's insecure-skip-tls-verify).
        tls_server_name: the name to expect in the certificate, where it is not the URL's host.
        namespace: of the context, for commands that are given none.
        credential: an Authorization header, or client certificate, that changes; its header wins over ``token``.
        impersonate: headers that ask to act as somebody else, as pairs of name and value.
        proxy: URL of an http(s) proxy.
    """

    server: str
    ca_data: bytes | None = None
    token: str | None = field(default=None, repr=False)
    client_cert_file: str | None = None
    client_key_file: str | None = None
    verify: bool = True
    tls_server_name: str | None = None
    namespace: str = "default"
    credential: Credential | None = field(default=None, repr=False)
    proxy: str | None = field(default=None, repr=False)  # may carry a password
    ca_file: str | None = None
    client_cert_data: bytes | None = field(default=None, repr=False)
    client_key_data: bytes | None = field(default=None, repr=False)
    impersonate: tuple[tuple[str, str], ...] = ()
