"""The Service of a Workspace: one address for its endpoint, before and after its pods are ready."""

from __future__ import annotations

from api import keys
from controllers.workspace.model import Observation
from controllers.workspace.owned import owned_metadata
from manager.resources import SERVICES
from manager.types import Obj


def service(obs: Observation) -> Obj:
    """Port 80 for ``/chat`` and 29500 for the workers of a distributed server.

    A cluster-internal address, unless the annotation asks for a load balancer with exactly "True".
    """
    annotations = obs.obj["metadata"].get("annotations") or {}
    balanced = annotations.get(keys.ENABLE_LOAD_BALANCER) == "True"
    return {
        "apiVersion": SERVICES.api_version,
        "kind": SERVICES.kind,
        "metadata": owned_metadata(obs),
        "spec": {
            "type": "LoadBalancer" if balanced else "ClusterIP",
            # The workers of a distributed server find each other before any of them is ready.
            "publishNotReadyAddresses": True,
            "selector": {keys.WORKSPACE_LABEL: obs.name},
            "ports": [
                {"name": "http", "protocol": "TCP", "port": 80, "targetPort": keys.SERVER_PORT},
                {
                    "name": "torch",
                    "protocol": "TCP",
                    "port": keys.TORCH_PORT,
                    "targetPort": keys.TORCH_PORT,
                },
            ],
        },
    }
