"""What exists for a Workspace beside its Deployment and Service, and whose an object is.

In: objects from the cache. Out: :class:`Children`, a part of the observation, and :func:`whose`. Pure. The owner
reference decides, never the name alone: what belongs to somebody else is not touched, and what an earlier
Workspace of the same name left behind is not served from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from api import keys
from manager.types import Obj

FINGERPRINT = "kaito.sh/applied-hash"


@dataclass(frozen=True, slots=True)
class Children:
    """The rest of what is stored for one Workspace.

    Attributes:
        headless: the Service by which the pods of a StatefulSet find each other.
        adapters: the ConfigMap with the wanted adapters.
        configs: the ConfigMap with its settings (``inference.config``, ``tuning.config``, a method's template) by
            name, None for one that is not there; the whole is None where nobody looked.
        job: the Job that tunes.
        revisions: ControllerRevisions that bear the Workspace's label; not all need to be the Workspace's.
        upgrade: pods may be replaced only because this operator makes them differently than the one before.
        operator: the operator's version.
    """

    statefulset: Obj | None = None
    headless: Obj | None = None
    adapters: Obj | None = None
    configs: Mapping[str, Obj | None] | None = None
    job: Obj | None = None
    revisions: tuple[Obj, ...] = ()
    upgrade: bool = False
    operator: str = ""


class Whose(Enum):
    """Whose an object of a needed name is.

    OURS is controlled by this very Workspace. ORPHAN was made by us and lost its owner (deleted with
    --cascade=orphan): it is adopted, so that a recreated Workspace goes on with what runs. LEFTOVER is controlled
    by a Workspace of the same name that is gone: it is deleted, and made anew. FOREIGN is everything else.
    """

    ABSENT = "absent"
    OURS = "ours"
    ORPHAN = "orphan"
    LEFTOVER = "leftover"
    FOREIGN = "foreign"


def whose(name: str, uid: str, stored: Obj | None) -> Whose:
    """Whose ``stored`` is, seen from the Workspace of this name and uid."""
    if stored is None:
        return Whose.ABSENT
    meta = stored["metadata"]
    owner = next((item for item in meta.get("ownerReferences") or [] if item.get("controller")), None)
    if owner is None:
        ours = (meta.get("labels") or {}).get(keys.WORKSPACE_LABEL) == name
        return Whose.ORPHAN if ours and FINGERPRINT in (meta.get("annotations") or {}) else Whose.FOREIGN
    if owner.get("uid") == uid:
        return Whose.OURS
    group = str(owner.get("apiVersion") or "").partition("/")[0]
    same = (group, owner.get("kind"), owner.get("name")) == (keys.KAITO_GROUP, "Workspace", name)
    return Whose.LEFTOVER if same else Whose.FOREIGN
