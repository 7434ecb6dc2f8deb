"""The Services of a Workspace: one address for its endpoint, and names by which pods of a group find each other.

In: an observation and whether the pods are a StatefulSet's. Out: manifests. Pure. Clients must not be sent to a
pod that cannot answer while another can.
"""

from __future__ import annotations

from api import keys
from controllers.workspace.model import Observation
from controllers.workspace.owned import owned_metadata
from manager.resources import SERVICES
from manager.types import Obj


def service(obs: Observation, *, grouped: bool) -> Obj:
    """Port 80 for ``/chat`` and 29500 for the workers of a distributed server.

    A cluster-internal address, unless the annotation asks for a load balancer with exactly "True". Of a group, the
    first pod answers for all.
    """
    annotations = obs.obj["metadata"].get("annotations") or {}
    balanced = annotations.get(keys.ENABLE_LOAD_BALANCER) == "True"
    selector = {keys.WORKSPACE_LABEL: obs.name}
    if grouped:
        selector[keys.POD_NAME_LABEL] = f"{obs.name}-0"
    return {
        "apiVersion": SERVICES.api_version,
        "kind": SERVICES.kind,
        "metadata": owned_metadata(obs),
        "spec": {
            "type": "LoadBalancer" if balanced else "ClusterIP",
            "publishNotReadyAddresses": grouped or not _divided(obs.pods),
            "selector": selector,
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


def headless_service(obs: Observation) -> Obj:
    """Names for the pods of a group, which find each other before any of them is ready."""
    return {
        "apiVersion": SERVICES.api_version,
        "kind": SERVICES.kind,
        "metadata": owned_metadata(obs, keys.HEADLESS_SUFFIX),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {keys.WORKSPACE_LABEL: obs.name},
            "ports": [
                {"name": "torchrun", "protocol": "TCP", "port": keys.TORCH_PORT, "targetPort": keys.TORCH_PORT}
            ],
        },
    }


def _divided(pods: tuple[Obj, ...]) -> bool:
    """Whether some pods can answer and some cannot.

    A server that loads answers how far it has come, so its address is worth publishing while there is no better
    one. But published addresses include those of pods that load or end, which a roll-out must not send clients to.
    """
    able = [_able(pod) for pod in pods]
    return any(able) and not all(able)


def _able(pod: Obj) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    ready = any(item.get("type") == "Ready" and item.get("status") == "True" for item in conditions)
    return ready and not pod["metadata"].get("deletionTimestamp")
