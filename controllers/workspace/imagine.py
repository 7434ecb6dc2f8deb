"""What an API server would hold after an action on a Workspace's own objects.

In: an observation and an action. Out: the observation a moment later. Pure. ``kaito plan`` and tests go through
many reconciles this way, without a server. Machines, nodes and pods are other people's work, and are not imagined
here.
"""

from __future__ import annotations

from dataclasses import replace

from controllers.workspace.model import Action, Annotate, Apply, CreateOnce, DeleteOwned, Merge, Observation
from manager.types import Obj, Resource


def imagine(obs: Observation, action: Action) -> Observation:
    """The observation after the action."""
    match action:
        case Apply(resource, body):
            name = str(body["metadata"]["name"])
            return _put(obs, resource, name, _applied(_get(obs, resource, name), body))
        case CreateOnce(resource, body):
            name = str(body["metadata"]["name"])
            if resource.kind == "ConfigMap":  # the settings of a run
                configs = {**(obs.children.configs or {}), name: body}
                return replace(obs, children=replace(obs.children, configs=configs))
            return _put(obs, resource, name, _applied(_get(obs, resource, name), body))
        case DeleteOwned(resource, _, name):
            return _put(obs, resource, name or obs.name, None)
        case Merge(resource, name, body):
            held = _get(obs, resource, name)
            return obs if held is None else _put(obs, resource, name, _merged(held, body))
        case Annotate(resource, name, annotations):
            found = obs.obj if resource.kind == "Workspace" else _get(obs, resource, name)
            if found is None:
                return obs
            meta = found["metadata"]
            changed = {
                **found,
                "metadata": {**meta, "annotations": {**(meta.get("annotations") or {}), **dict(annotations)}},
            }
            return (
                replace(obs, obj=changed) if resource.kind == "Workspace" else _put(obs, resource, name, changed)
            )
    return obs


def _merged(value: Obj, patch: Obj) -> Obj:
    """A merge patch that takes nothing away."""
    found = dict(value)
    for key, new in patch.items():
        found[key] = (
            _merged(found[key], new) if isinstance(new, dict) and isinstance(found.get(key), dict) else new
        )
    return found


def _applied(before: Obj | None, body: Obj) -> Obj:
    """The body as stored: a new specification is a new generation, whatever reports stays."""
    old = before or {"metadata": {}}
    generation = int(old["metadata"].get("generation") or 0)
    changed = before is None or old.get("spec") != body.get("spec")
    kept = {"uid": old["metadata"].get("uid") or f"uid-of-{body['kind']}-{body['metadata']['name']}".lower()}
    meta = {**body["metadata"], **kept, "generation": generation + changed}
    return {**body, "metadata": meta, **({"status": old["status"]} if "status" in old else {})}


def _get(obs: Observation, resource: Resource, name: str) -> Obj | None:
    children = obs.children
    match resource.kind:
        case "Deployment":
            return obs.deployment
        case "StatefulSet":
            return children.statefulset
        case "Job":
            return children.job
        case "Service":
            return obs.service if name == obs.name else children.headless
        case "ConfigMap":
            return children.adapters
        case "ControllerRevision":
            return next((item for item in children.revisions if item["metadata"]["name"] == name), None)
    return None


def _put(obs: Observation, resource: Resource, name: str, obj: Obj | None) -> Observation:
    children = obs.children
    match resource.kind:
        case "Deployment":
            return replace(obs, deployment=obj)
        case "StatefulSet":
            children = replace(children, statefulset=obj)
        case "Job":
            children = replace(children, job=obj)
        case "Service" if name == obs.name:
            return replace(obs, service=obj)
        case "Service":
            children = replace(children, headless=obj)
        case "ConfigMap":
            children = replace(children, adapters=obj)
        case "ControllerRevision":
            others = [item for item in children.revisions if item["metadata"]["name"] != name]
            children = replace(children, revisions=(*others, *([obj] if obj else [])))
        case "Pod":
            return replace(obs, pods=tuple(pod for pod in obs.pods if pod["metadata"]["name"] != name))
    return replace(obs, children=children)
