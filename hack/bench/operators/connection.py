"""What the bare contender needs of a kubeconfig, without our framework: server, headers, TLS."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path

import yaml


def connection(kubeconfig: Path) -> tuple[str, dict[str, str], ssl.SSLContext | bool]:
    """Of the current context; a token, or a client certificate in files."""
    content = yaml.safe_load(kubeconfig.read_text())
    context = next(c["context"] for c in content["contexts"] if c["name"] == content["current-context"])
    cluster = next(c["cluster"] for c in content["clusters"] if c["name"] == context["cluster"])
    user = next(u["user"] for u in content["users"] if u["name"] == context["user"])
    headers = {"Authorization": f"Bearer {user['token']}"} if user.get("token") else {}
    if not cluster["server"].startswith("https"):
        return cluster["server"], headers, False
    data = cluster.get("certificate-authority-data")
    tls = ssl.create_default_context(
        cadata=base64.b64decode(data).decode() if data else None, cafile=cluster.get("certificate-authority")
    )
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    if user.get("client-certificate"):
        tls.load_cert_chain(user["client-certificate"], user["client-key"])
    return cluster["server"], headers, tls
