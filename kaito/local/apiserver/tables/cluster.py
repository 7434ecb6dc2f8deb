"""The tables of nodes, namespaces, storage, configuration, access rules, events and API extensions.

In: objects of those kinds. Out: their columns, as data.
"""

from __future__ import annotations

from datetime import datetime

from manager.types import Obj

from .cells import NONE, UNKNOWN, access_modes, at, computed, condition, field, number, plain
from .column import AGE, NAME, Column
from .durations import human, since

_ROLE = "node-role.kubernetes.io/"


def _node_status(node: Obj) -> str:
    ready = condition(node, "Ready")
    word = "Unknown" if ready is None else ("Ready" if ready.get("status") == "True" else "NotReady")
    return f"{word},SchedulingDisabled" if at(node, "spec.unschedulable", False) else word


def _roles(node: Obj) -> str:
    found = set()
    for key, value in at(node, "metadata.labels", {}).items():
        if key.startswith(_ROLE) and len(key) > len(_ROLE):
            found.add(key.removeprefix(_ROLE))
        elif key == "kubernetes.io/role" and value:
            found.add(value)
    return ",".join(sorted(found)) or NONE


def _address(kind: str) -> Column:
    def cell(node: Obj) -> str:
        for address in at(node, "status.addresses", []):
            if address.get("type") == kind:
                return str(address.get("address", ""))
        return NONE

    return plain("Internal-IP" if kind == "InternalIP" else "External-IP", cell, wide=True)


def _info(name: str, key: str) -> Column:
    return plain(name, lambda node: at(node, f"status.nodeInfo.{key}") or UNKNOWN, wide=True)


NODE: list[Column] = [
    NAME,
    plain("Status", _node_status),
    plain("Roles", _roles),
    AGE,
    field("Version", "status.nodeInfo.kubeletVersion"),
    _address("InternalIP"),
    _address("ExternalIP"),
    _info("OS-Image", "osImage"),
    _info("Kernel-Version", "kernelVersion"),
    _info("Container-Runtime", "containerRuntimeVersion"),
]
NAMESPACE: list[Column] = [NAME, field("Status", "status.phase"), AGE]


def _data(obj: Obj) -> int:
    return len(obj.get("data") or {}) + len(obj.get("binaryData") or {})


CONFIG_MAP: list[Column] = [NAME, plain("Data", _data), AGE]
SECRET: list[Column] = [NAME, field("Type", "type"), plain("Data", _data), AGE]
SERVICE_ACCOUNT: list[Column] = [
    NAME,
    plain("Secrets", lambda obj: len(obj.get("secrets") or ())),
    AGE,
]


def _phase(obj: Obj) -> str:
    return "Terminating" if at(obj, "metadata.deletionTimestamp") else str(at(obj, "status.phase", ""))


def _storage_class(obj: Obj) -> str:
    legacy = at(obj, "metadata.annotations", {}).get("volume.beta.kubernetes.io/storage-class")
    return str(legacy if legacy is not None else at(obj, "spec.storageClassName", ""))


def _claim(volume: Obj) -> str:
    claim = at(volume, "spec.claimRef", {})
    return f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else ""


_VOLUME_MODE = field("VolumeMode", "spec.volumeMode", "<unset>", wide=True)
VOLUME: list[Column] = [
    NAME,
    field("Capacity", "spec.capacity.storage"),
    plain("Access Modes", lambda obj: access_modes(at(obj, "spec.accessModes"))),
    field("Reclaim Policy", "spec.persistentVolumeReclaimPolicy"),
    plain("Status", _phase),
    plain("Claim", _claim),
    plain("StorageClass", _storage_class),
    field("VolumeAttributesClass", "spec.volumeAttributesClassName", "<unset>"),
    field("Reason", "status.reason"),
    AGE,
    _VOLUME_MODE,
]


def _when_bound(path: str, shown: Column) -> Column:
    def cell(claim: Obj, now: datetime) -> object:
        return shown.cell(claim, now) if at(claim, path) else ""

    return Column(shown.name, cell, type=shown.type, priority=shown.priority)


CLAIM: list[Column] = [
    NAME,
    plain("Status", _phase),
    field("Volume", "spec.volumeName"),
    _when_bound("spec.volumeName", field("Capacity", "status.capacity.storage")),
    _when_bound("spec.volumeName", plain("Access Modes", lambda obj: access_modes(at(obj, "status.accessModes")))),
    plain("StorageClass", _storage_class),
    field("VolumeAttributesClass", "spec.volumeAttributesClassName", "<unset>"),
    AGE,
    _VOLUME_MODE,
]


def _class_name(obj: Obj) -> str:
    annotations = at(obj, "metadata.annotations", {})
    default = annotations.get("storageclass.kubernetes.io/is-default-class") == "true"
    return str(at(obj, "metadata.name", "")) + (" (default)" if default else "")


STORAGE_CLASS: list[Column] = [
    Column("Name", lambda obj, _now: _class_name(obj), format="name", description=NAME.description),
    field("Provisioner", "provisioner"),
    field("ReclaimPolicy", "reclaimPolicy", "Delete"),
    field("VolumeBindingMode", "volumeBindingMode", "<unset>"),
    plain("AllowVolumeExpansion", lambda obj: bool(obj.get("allowVolumeExpansion"))),
    AGE,
]
LEASE: list[Column] = [NAME, field("Holder", "spec.holderIdentity"), AGE]
PRIORITY_CLASS: list[Column] = [
    NAME,
    number("Value", "value"),
    plain("Global-Default", lambda obj: bool(obj.get("globalDefault")), kind="boolean"),
    AGE,
    field("PreemptionPolicy", "preemptionPolicy"),
]
RUNTIME_CLASS: list[Column] = [NAME, field("Handler", "handler"), AGE]
WEBHOOKS: list[Column] = [
    NAME,
    plain("Webhooks", lambda obj: len(obj.get("webhooks") or ()), kind="integer"),
    AGE,
]


def _service(obj: Obj) -> str:
    service = at(obj, "spec.service", {})
    return f"{service.get('namespace', '')}/{service.get('name', '')}" if service else "Local"


def _available(obj: Obj) -> str:
    found = condition(obj, "Available")
    if found is None:
        return "Unknown"
    if found.get("status") == "True":
        return "True"
    return f"{found.get('status')} ({found.get('reason', '')})"


API_SERVICE: list[Column] = [NAME, plain("Service", _service), plain("Available", _available), AGE]

# ---------------------------------------------------------------------- access

CREATED_AT: list[Column] = [
    NAME,
    Column(
        "Created At",
        lambda obj, _now: at(obj, "metadata.creationTimestamp", UNKNOWN),
        type="date",
        description="When the object was created, in UTC.",
    ),
]


def _subjects(kind: str) -> Column:
    titles = {"User": "Users", "Group": "Groups", "ServiceAccount": "ServiceAccounts"}

    def cell(obj: Obj) -> str:
        found = [one for one in obj.get("subjects") or () if one.get("kind") == kind]
        prefix = kind == "ServiceAccount"
        return ", ".join(f"{one.get('namespace', '')}/{one['name']}" if prefix else one["name"] for one in found)

    return plain(titles[kind], cell, wide=True)


BINDING: list[Column] = [
    NAME,
    plain("Role", lambda obj: f"{at(obj, 'roleRef.kind', '')}/{at(obj, 'roleRef.name', '')}"),
    AGE,
    _subjects("User"),
    _subjects("Group"),
    _subjects("ServiceAccount"),
]


def _request_status(obj: Obj) -> str:
    word = next((kind for kind in ("Denied", "Approved") if condition(obj, kind)), "Pending")
    if condition(obj, "Failed"):
        word += ",Failed"
    return word + (",Issued" if at(obj, "status.certificate") else "")


def _requested(obj: Obj) -> str:
    seconds = at(obj, "spec.expirationSeconds")
    return NONE if seconds is None else human(float(seconds))


SIGNING_REQUEST: list[Column] = [
    NAME,
    AGE,
    field("SignerName", "spec.signerName", NONE),
    field("Requestor", "spec.username"),
    plain("RequestedDuration", _requested),
    plain("Condition", _request_status),
]


def _quota(limits: bool) -> Column:
    def cell(obj: Obj) -> str:
        hard, used = at(obj, "status.hard", {}), at(obj, "status.used", {})
        names = sorted(name for name in hard if name.startswith("limits") == limits)
        return ", ".join(f"{name}: {used.get(name, '0')}/{hard[name]}" for name in names)

    return plain("Limit" if limits else "Request", cell)


QUOTA: list[Column] = [NAME, _quota(limits=False), _quota(limits=True), AGE]
CSI_NODE: list[Column] = [
    NAME,
    plain("Drivers", lambda obj: len(at(obj, "spec.drivers", [])), kind="integer"),
    AGE,
]
ATTACHMENT: list[Column] = [
    NAME,
    field("Attacher", "spec.attacher"),
    field("PV", "spec.source.persistentVolumeName"),
    field("Node", "spec.nodeName"),
    plain("Attached", lambda obj: bool(at(obj, "status.attached", False)), kind="boolean"),
    AGE,
]

# ---------------------------------------------------------------------- events


def _last_seen(event: Obj, now: datetime) -> str:
    """When it was last seen; both served shapes of Event are understood."""
    series = event.get("series") or {}
    seen = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("deprecatedLastTimestamp")
    return since(seen or event.get("eventTime"), now)


def _first(event: Obj) -> str | None:
    return event.get("firstTimestamp") or event.get("deprecatedFirstTimestamp") or event.get("eventTime")


def _about(event: Obj) -> Obj:
    found = event.get("involvedObject") or event.get("regarding") or {}
    return found if isinstance(found, dict) else {}


def _source(event: Obj) -> str:
    source = event.get("source") or event.get("deprecatedSource") or {}
    component = source.get("component") or event.get("reportingComponent") or event.get("reportingController")
    host = source.get("host") or event.get("reportingInstance")
    return ", ".join(str(part) for part in (component, host) if part)


def _count(event: Obj) -> int:
    series = event.get("series")
    if series:
        return int(series.get("count") or 0) + 1  # a series counts what came after the first
    return int(event.get("count") or event.get("deprecatedCount") or 1)


EVENT: list[Column] = [
    computed("Last Seen", _last_seen),
    field("Type", "type"),
    field("Reason", "reason"),
    plain("Object", lambda event: f"{str(_about(event).get('kind', '')).lower()}/{_about(event).get('name', '')}"),
    plain("Subobject", lambda event: _about(event).get("fieldPath", ""), wide=True),
    plain("Source", _source, wide=True),
    plain("Message", lambda event: str(event.get("message") or event.get("note") or "").strip()),
    computed("First Seen", lambda event, now: since(_first(event), now), wide=True),
    plain("Count", _count, wide=True),
    Column("Name", NAME.cell, format="name", description=NAME.description, priority=1),
]
