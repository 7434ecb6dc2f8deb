"""The operator's webhooks, put together: a TLS server, its certificates, and what it answers.

In: a manager that does not run yet, an address, the names by which API servers call it. Out: runnables and
readiness checks of that manager. Every replica serves, whoever leads: the API server picks any.
The certificates are kept in the Secret ``workspace-webhook-cert`` and replaced in time by whichever replica sees
it first, or they are somebody else's, in a folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from api import webhook
from kaito.errors import CliError

if TYPE_CHECKING:
    from api.validation import Switches
    from manager.manager import Manager

_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - what a pod listens on


def serve_webhooks(
    mgr: Manager,
    bind: str,
    *,
    service: str,
    namespace: str,
    switches: Switches,
    cert_dir: Path | None = None,
) -> None:
    """Add the webhooks to a manager.

    Raises:
        CliError: the address is none (exit code 2).
    """
    from controllers import add_workspace_webhook
    from manager.certs.injection import validating
    from manager.certs.rotator import Rotator
    from manager.certs.serving import ServingCertificate
    from manager.runnables import Group
    from manager.webhooks.server import WebhookServer

    host, _, port = bind.rpartition(":")
    if not port.isdigit():
        raise CliError(f"--webhook-bind {bind}: not host:port", "for instance 0.0.0.0:9443", exit_code=2)
    host = host.strip("[]")
    if cert_dir is not None:
        server = WebhookServer(host=host, port=int(port), cert_dir=cert_dir, registry=mgr.metrics)
    else:
        certificate = ServingCertificate()
        names = [f"{service}.{namespace}.svc", f"{service}.{namespace}.svc.cluster.local"]
        rotator = Rotator(
            mgr.live,
            namespace=namespace,
            secret=webhook.SECRET,
            dns_names=names if host in _EVERYWHERE else [host, *names],
            targets=[validating(webhook.CONFIGURATION)],
            serving=certificate,
        )
        mgr.add(rotator.run, name="webhook-certificates", group=Group.WEBHOOKS)
        mgr.add_readyz("webhook-certificates", rotator.check)
        server = WebhookServer(host=host, port=int(port), certificate=certificate, registry=mgr.metrics)
    add_workspace_webhook(server, mgr.live, switches)
    mgr.add(server.run, name="webhooks", group=Group.WEBHOOKS)
    mgr.add_readyz("webhooks", server.started)
