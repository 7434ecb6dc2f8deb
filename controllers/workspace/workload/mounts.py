"""What a Workspace's adapters need of its pods, and why an edit of them rarely replaces any.

In: the adapters of a specification, and what the running pods were given. Out: :class:`Mounts`. Pure. The list of
adapters is data (``controllers.workspace.adapters``); pods only need the pull secrets and volumes that it names.
What runs and has all that is needed stays as it is, also when it has more: a pod template changes only for a
secret or a volume that no pod has yet.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self

from api import keys
from api.v1alpha1 import AdapterSpec, InferenceSpec
from api.validation.adapters import MAX_ADAPTERS
from controllers.workspace.owned import digest
from manager.types import Obj


@dataclass(frozen=True, slots=True)
class Mounts:
    """Names of pull secrets, volumes by the adapter's name, and how many adapters one batch may mix.

    ``slots`` costs GPU memory for each; more adapters than slots are served too, in turns.
    """

    secrets: tuple[str, ...] = ()
    volumes: tuple[tuple[str, Any], ...] = ()
    slots: int = 1

    def covers(self, other: Self) -> bool:
        """Whether pods with these can do with the others' needs."""
        own = dict(self.volumes)
        return set(other.secrets) <= set(self.secrets) and all(
            name in own and own[name] == source for name, source in other.volumes
        )

    def to_text(self) -> str:
        """As an annotation."""
        value = {"secrets": self.secrets, "slots": self.slots, "volumes": dict(self.volumes)}
        return json.dumps(value, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """Out of an annotation; None where there is none that can be read."""
        try:
            value = json.loads(text)
            return cls(tuple(value["secrets"]), tuple(sorted(value["volumes"].items())), int(value["slots"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def needed(inference: InferenceSpec) -> Mounts:
    """What these adapters need."""
    secrets: set[str] = set()
    volumes: dict[str, Obj] = {}
    for adapter in inference.adapters:
        source = adapter.source
        if source is not None:
            secrets.update(source.image_pull_secrets)
        if source is not None and source.volume_source is not None:
            volumes[adapter_name(adapter)] = source.volume_source
    slots = min(max(len(inference.adapters), 1), MAX_ADAPTERS)
    return Mounts(tuple(sorted(secrets)), tuple(sorted(volumes.items())), slots)


def given(workload: Obj | None) -> Mounts | None:
    """What the pods of a stored workload were given."""
    if workload is None:
        return None
    return Mounts.from_text((workload["metadata"].get("annotations") or {}).get(keys.ADAPTER_MOUNTS, ""))


def mounts_for(inference: InferenceSpec, workload: Obj | None) -> Mounts:
    """What pods are to have: what they have, where that is enough."""
    wants, has = needed(inference), given(workload)
    return has if has is not None and has.covers(wants) else wants


def adapter_name(adapter: AdapterSpec) -> str:
    """The name by which requests pick an adapter; validation has seen to it that there is one."""
    return (adapter.source.name if adapter.source else None) or ""


def volume_name(adapter: str, source: Any) -> str:
    """A volume's name in the pod. Another source is another volume, which the server would else merge with the
    old one's."""
    return f"adapter-{digest([adapter, source])[:10]}"
