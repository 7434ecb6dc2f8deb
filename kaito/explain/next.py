"""What to type next, for each reason.

In: a reason and its facts, the subject's name and namespace. Out: commands that can be pasted. Pure. Looking comes
before changing; a command that destroys something is never the first.
"""

from __future__ import annotations

from collections.abc import Mapping

from api.reasons import RUN_FAILURES, Fact, Reason
from controllers.workspace.findings import Turn, passes

_LOGS_BEFORE = {Reason.CRASH_LOOP, Reason.OUT_OF_MEMORY}
_LOGS = {Reason.ENGINE_FAILED, Reason.MODEL_PULLING, Reason.MODEL_LOADING, Reason.CONTAINER_STARTING}
_RUN = {*RUN_FAILURES, Reason.TUNING_JOB_FAILED, Reason.TUNING_RETRYING}
_RUNNING = {
    Reason.TUNING_STARTING,
    Reason.TUNING_FETCHING,
    Reason.TUNING_LOADING,
    Reason.TUNING_TRAINING,
    Reason.TUNING_SAVING,
    Reason.TUNING_PUSHING,
}
_POD = {
    Reason.IMAGE_PULL_FAILED,
    Reason.CONTAINER_START_FAILED,
    Reason.POD_UNSCHEDULABLE,
    Reason.POD_EVICTED,
    Reason.POD_PENDING,
}
_NODE = {Reason.NODE_NOT_READY, Reason.NODE_DISK_PRESSURE, Reason.NODE_MEMORY_PRESSURE, Reason.GPU_NOT_VISIBLE}
_SIZING = {Reason.MODEL_UNKNOWN, Reason.MODEL_DOES_NOT_FIT, Reason.NO_INSTANCE_TYPE_FITS}
_NODES = {Reason.NO_NODE_MATCHES, Reason.NODES_MISSING, Reason.NODE_MISMATCH}
_CONFIG = {Reason.CONFIG_MISSING, Reason.CONFIG_INVALID}
_INSTALL = {
    Reason.MACHINE_API_MISSING: "kubectl apply -k config/crd",
    Reason.NODECLAIM_API_MISSING: "kubectl apply --server-side -k config/nodeclaim",
}
_MANIFEST = {
    Reason.UNKNOWN_PRESET,
    Reason.INVALID_SPEC,
    Reason.PLACEHOLDER_IN_SPEC,
    Reason.INSTANCE_TYPE_NEEDED,
    Reason.KIND_TOGGLED,
}
_ADAPTERS = {Reason.ADAPTER_FAILED, Reason.ADAPTERS_LOADING, Reason.ADAPTERS_OUTDATED, Reason.ADAPTERS_UNKNOWN}


def commands(reason: str, facts: Mapping[str, Fact], name: str, namespace: str) -> tuple[str, ...]:
    """What helps with this reason; the first is the one to type."""
    space = f" -n {namespace}"
    pod, node, machine = (str(facts.get(key) or "") for key in ("pod", "node", "machine"))
    if reason in _LOGS_BEFORE:
        return (f"kaito logs {name}{space} --previous",)
    if reason in _RUN:
        mend = f"kubectl edit workspace {name}{space}"
        return (f"kubectl describe workspace {name}{space}", mend, f"kubectl delete job {name}{space}")
    if reason in _RUNNING:
        return (f"kaito logs {name}{space} -f",)
    if reason in _LOGS or reason in _ADAPTERS:
        return (f"kaito logs {name}{space}" + (" -f" if passes(reason) else ""),)
    if reason == Reason.POD_STUCK:
        return (f"kubectl describe node {node}", f"kubectl delete pod {pod}{space} --force --grace-period=0")
    if reason in _POD and pod:
        return (f"kubectl describe pod {pod}{space}",)
    if reason in _NODE and node:
        return (f"kubectl describe node {node}",)
    if reason == Reason.REPLICAS_REFUSED:
        return (f"kubectl describe resourcequota{space}",)
    if reason in _MANIFEST:
        return (f"kubectl edit workspace {name}{space}",)
    if reason in _SIZING:
        return (f"kubectl get workspace {name}{space} -o yaml | kaito plan -f -",)
    if reason in _NODES:
        return ("kubectl get nodes --show-labels",)
    if reason in _CONFIG:
        return (f"kubectl get configmap{space} {facts.get('name') or ''}".rstrip() + " -o yaml",)
    for missing, command in _INSTALL.items():
        if reason == missing:
            return (command,)
    if passes(reason):
        return (f"kaito get workspace {name}{space} -o wide --watch",)
    if machine:
        return (
            f"kubectl describe machine {machine}",
            f"kubectl get workspace {name}{space} -o yaml | kaito plan -f -",
        )
    return (f"kubectl describe workspace {name}{space}",)


def turn_words(turn: str) -> str:
    """Whose turn it is, as a person says it."""
    return "yours" if turn == Turn.YOU else "Kubernetes'" if turn == Turn.KUBERNETES else f"the {turn}'s"
