"""Who owns what: adoption and release of pods, ReplicaSets and revisions by their controller.

Pure: :func:`sort_out` looks at the candidates of one owner and says which it keeps, which it should adopt
(orphans that match its selector) and which it should release (its own that no longer match). The patches carry
the object's uid, so that an object of the same name that was made since is never touched.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from manager.meta import controller_of, owner_reference
from manager.selectors import LabelSelector
from manager.types import Obj

from .pods import is_terminating, labels_of, meta_of, uid_of


@dataclass(frozen=True, slots=True)
class Claims:
    """What belongs to an owner now, and what should change."""

    kept: list[Obj] = field(default_factory=list)
    adopt: list[Obj] = field(default_factory=list)
    release: list[Obj] = field(default_factory=list)


def sort_out(owner: Obj, selector: LabelSelector, candidates: Iterable[Obj]) -> Claims:
    """Keep, adopt or release each candidate of the owner's namespace.

    An owner that is being deleted adopts and releases nothing; a candidate that is being deleted is not
    adopted. The caller must have read the owner afresh before it carries out an adoption: a deleted owner must
    not take orphans with it.
    """
    claims = Claims()
    leaving = is_terminating(owner)
    for candidate in candidates:
        controller = controller_of(candidate)
        matches = selector.matches(labels_of(candidate))
        if controller is not None:
            if controller.get("uid") != uid_of(owner):
                continue
            if matches or leaving:
                claims.kept.append(candidate)
            else:
                claims.release.append(candidate)
        elif matches and not leaving and not is_terminating(candidate):
            claims.adopt.append(candidate)
    return claims


def adoption_patch(owner: Obj, candidate: Obj) -> Obj:
    """The merge patch that makes ``owner`` the controller of ``candidate``."""
    references = list(meta_of(candidate).get("ownerReferences") or ())
    return {
        "metadata": {
            "uid": uid_of(candidate),
            "resourceVersion": meta_of(candidate).get("resourceVersion"),
            "ownerReferences": [*references, owner_reference(owner, controller=True)],
        }
    }


def release_patch(owner: Obj, candidate: Obj) -> Obj:
    """The merge patch that takes ``owner`` off ``candidate``."""
    references = [r for r in meta_of(candidate).get("ownerReferences") or () if r.get("uid") != uid_of(owner)]
    return {
        "metadata": {
            "uid": uid_of(candidate),
            "resourceVersion": meta_of(candidate).get("resourceVersion"),
            "ownerReferences": references or None,
        }
    }
