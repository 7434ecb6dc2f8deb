"""What the operator's two service accounts must be allowed to do: the manifests' own rules, as questions.

In: ``needs.json``, which ``hack/generate.py`` makes of ``config/rbac``. Out: access reviews' attributes. The rules
are not written twice: a role that changes there is asked for here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from itertools import product
from typing import Any

NAMESPACE = "kaito-system"


@dataclass(frozen=True, slots=True, order=True)
class Need:
    """One thing that must be allowed. ``namespace`` empty: everywhere; ``name`` empty: every object."""

    account: str
    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        what = f"{self.resource}{f'.{self.group}' if self.group else ''}"
        what += f"/{self.subresource}" if self.subresource else ""
        what += f" {self.name}" if self.name else ""
        return f"{self.verb} {what}" + (f" in {self.namespace}" if self.namespace else "")

    def attributes(self) -> dict[str, str]:
        """As a SubjectAccessReview asks for it."""
        found = {
            "verb": self.verb,
            "group": self.group,
            "resource": self.resource,
            "subresource": self.subresource,
            "namespace": self.namespace,
            "name": self.name,
        }
        return {key: value for key, value in found.items() if value}


def needs() -> list[Need]:
    """Everything, for both accounts."""
    text = (resources.files("kaito.doctor") / "needs.json").read_text(encoding="utf-8")
    return [Need(**item) for item in json.loads(text)]


def needs_of(objects: list[dict[str, Any]]) -> list[Need]:
    """The needs that RBAC objects grant to service accounts."""
    rules = {(item["kind"], item["metadata"]["name"]): item for item in objects if item["kind"].endswith("Role")}
    found: set[Need] = set()
    for binding in objects:
        if not binding["kind"].endswith("RoleBinding"):
            continue
        reference = binding["roleRef"]
        role = rules.get((reference["kind"], reference["name"]))
        if role is None:
            continue
        namespace = str(binding["metadata"].get("namespace") or "")
        for subject in binding["subjects"]:
            for rule in role["rules"]:
                found |= set(_of_rule(rule, subject["name"], namespace))
    return sorted(found)


def _of_rule(rule: dict[str, Any], account: str, namespace: str) -> list[Need]:
    made = []
    names = rule.get("resourceNames") or [""]
    for group, resource, verb, name in product(rule["apiGroups"], rule["resources"], rule["verbs"], names):
        plural, _, subresource = resource.partition("/")
        made.append(Need(account, verb, group, plural, subresource, namespace, name))
    return made
