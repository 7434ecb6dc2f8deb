"""The ValidatingWebhookConfiguration of the Workspace, in one place for the manifests and for the local cluster.

In: how API servers reach the webhook. Out: the object, without a ``caBundle``: whoever rotates the certificates
writes that, and nothing else in it.
"""

from __future__ import annotations

from typing import Final

from api import v1alpha1, v1beta1
from api.model import Obj

CONFIGURATION: Final = "validation.workspace.kaito.sh"
"""The configuration's name and its webhook's; upstream's, so that an upgrade replaces it."""

PATH: Final = "/validate/workspace.kaito.sh"
SERVICE: Final = "kaito-webhook"
NAMESPACE: Final = "kaito-system"
SECRET: Final = "workspace-webhook-cert"  # noqa: S105 - a name


def service_client(namespace: str = NAMESPACE) -> Obj:
    """Reached by the Service of the shipped manifests."""
    return {"service": {"name": SERVICE, "namespace": namespace, "path": PATH, "port": 443}}


def url_client(host: str, port: int) -> Obj:
    """Reached by an address, where the operator is no pod."""
    return {"url": f"https://{host}:{port}{PATH}"}


def workspace_webhook(client: Obj, *, failure_policy: str = "Fail") -> Obj:
    """The configuration: creations and changes of Workspaces in every version, not their status."""
    rule = {
        "apiGroups": [v1alpha1.GROUP],
        "apiVersions": [v1alpha1.VERSION, v1beta1.VERSION],
        "resources": [v1alpha1.PLURAL],
        "operations": ["CREATE", "UPDATE"],
        "scope": "Namespaced",
    }
    webhook = {
        "name": CONFIGURATION,
        "clientConfig": client,
        "rules": [rule],
        "failurePolicy": failure_policy,
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1", "v1beta1"],
        "timeoutSeconds": 10,
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": CONFIGURATION, "labels": {"app.kubernetes.io/name": "kaito"}},
        "webhooks": [webhook],
    }
