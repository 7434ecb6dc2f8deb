"""Which resources the server serves: built-in ones and those that CustomResourceDefinitions add.

In: the built-in table and CRD objects. Out: :class:`ResourceType` values, one per resource *and version*, with
everything that the handlers need to know: names, verbs, subresources, schema, printer columns, scale paths.
:class:`Registry` is the only mutable thing; its owner is the server, which adds and removes CRDs as they are
stored. What must never happen: two types answering for one (group, version, plural), or a CRD replacing a
built-in resource.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from manager.types import Obj

from .builtin import ALL_VERBS, BUILTIN_ROWS, Row
from .hooks.table import Table
from .schema import Schema
from .tables.column import Column


@dataclass(frozen=True, slots=True)
class ScalePaths:
    """Where the scale subresource finds its numbers; JSON paths such as ``.spec.replicas``."""

    spec_replicas: str
    status_replicas: str
    label_selector: str | None = None


@dataclass(frozen=True, eq=False)
class ResourceType:
    """One resource in one version. Compared by identity; made once and shared."""

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    list_kind: str
    namespaced: bool
    verbs: tuple[str, ...] = ALL_VERBS
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: frozenset[str] = frozenset()
    storage_version: str = ""
    schema: Schema | None = None
    columns: list[Column] | None = None  # None: the built-in printer of the kind, else NAME and AGE
    is_crd: bool = False
    storage_group: str = ""
    scale: ScalePaths | None = None
    table: Table | None = None  # of a CRD that converts by webhook: what is known in this version
    deprecation_warning: str | None = None  # sent as a Warning header when this version is used

    @property
    def api_version(self) -> str:
        """``v1`` or ``group/version``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def storage_api_version(self) -> str:
        """The apiVersion that objects carry in storage."""
        return f"{self.storage_group}/{self.storage_version}" if self.storage_group else self.storage_version

    @property
    def storage_key(self) -> str:
        """What the objects are stored under: equal for all versions (and groups) that share storage."""
        return f"{self.storage_group}/{self.plural}" if self.storage_group else self.plural

    @property
    def group_resource(self) -> str:
        """``deployments.apps``, or ``pods`` in the core group: the spelling of error messages."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def group_kind(self) -> str:
        """``Deployment.apps``, or ``Pod`` in the core group."""
        return f"{self.kind}.{self.group}" if self.group else self.kind

    @property
    def is_storage_version(self) -> bool:
        """Whether this version is the stored one."""
        return self.group == self.storage_group and self.version == self.storage_version


_SCALE = ScalePaths(".spec.replicas", ".status.replicas", ".status.selector")


def _from_row(row: Row) -> ResourceType:
    return ResourceType(
        group=row.group,
        version=row.version,
        plural=row.plural,
        singular=row.singular,
        kind=row.kind,
        list_kind=f"{row.kind}List",
        namespaced=row.namespaced,
        verbs=row.verbs,
        short_names=row.short_names,
        categories=row.categories,
        subresources=frozenset(row.subresources),
        storage_version=row.storage_version or row.version,
        storage_group=row.group if row.storage_group is None else row.storage_group,
        schema=Schema.builtin(row.group, row.version, row.kind),
        scale=_SCALE if "scale" in row.subresources else None,
    )


@lru_cache(maxsize=1)
def _builtin() -> tuple[ResourceType, ...]:
    return tuple(_from_row(row) for row in BUILTIN_ROWS)


def builtin_types() -> list[ResourceType]:
    """The built-in resources, in the order of a real server's discovery."""
    return list(_builtin())


def types_from_crd(crd: Obj) -> list[ResourceType]:
    """The resource types that a CRD serves, preferred version first (Kubernetes' version order).

    The CRD must have passed :func:`schema.validate_crd`; unserved versions are left out.
    """
    spec = crd["spec"]
    names = spec["names"]
    versions = spec["versions"]
    storage = next(version["name"] for version in versions if version.get("storage"))
    conversion = spec.get("conversion") or {}
    table = Table(conversion.get("webhook") or {}) if conversion.get("strategy") == "Webhook" else None
    types = []
    for version in sorted(versions, key=lambda item: version_priority(str(item["name"]))):
        if not version.get("served"):
            continue
        subresources = version.get("subresources") or {}
        scale = subresources.get("scale")
        warning = None
        if version.get("deprecated"):
            warning = version.get("deprecationWarning") or (
                f"{spec['group']}/{version['name']} {names['kind']} is deprecated"
            )
        columns = version.get("additionalPrinterColumns")
        types.append(
            ResourceType(
                group=spec["group"],
                version=version["name"],
                plural=names["plural"],
                singular=names.get("singular") or names["kind"].lower(),
                kind=names["kind"],
                list_kind=names.get("listKind") or f"{names['kind']}List",
                namespaced=spec.get("scope") == "Namespaced",
                short_names=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                subresources=frozenset(name for name in ("status", "scale") if name in subresources),
                storage_version=storage,
                storage_group=spec["group"],
                schema=Schema.from_crd((version.get("schema") or {}).get("openAPIV3Schema")),
                columns=Column.from_crd(columns) if columns else None,
                is_crd=True,
                scale=ScalePaths(
                    scale["specReplicasPath"], scale["statusReplicasPath"], scale.get("labelSelectorPath")
                )
                if scale
                else None,
                table=table,
                deprecation_warning=warning,
            )
        )
    return types


def version_priority(version: str) -> tuple[int, int, int, str]:
    """A sort key: v2, v1, v2beta1, v1beta1, v1alpha2, v1alpha1, then other names alphabetically."""
    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if not match:
        return (3, 0, 0, version)
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return (stage, -int(match[1]), -int(match[3] or 0), "")


@dataclass
class Registry:
    """The types that are served now."""

    _types: dict[tuple[str, str, str], ResourceType] = field(default_factory=dict)
    _kinds: dict[tuple[str, str, str], ResourceType] = field(default_factory=dict)
    _crds: dict[str, list[ResourceType]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for resource_type in builtin_types():
            self._put(resource_type)

    def add_crd(self, crd: Obj) -> list[ResourceType]:
        """Serve a CRD's versions, in place of what an older state of the same CRD served."""
        name = str(crd["metadata"]["name"])
        self.remove_crd(name)
        types = types_from_crd(crd)
        self._crds[name] = types
        for resource_type in types:
            self._put(resource_type)
        return types

    def remove_crd(self, crd: Obj | str) -> None:
        """Serve the CRD (or the CRD of this name) no longer. Unknown names are no error."""
        name = crd if isinstance(crd, str) else str(crd["metadata"]["name"])
        for gone in self._crds.pop(name, []):
            self._types.pop((gone.group, gone.version, gone.plural), None)
            self._kinds.pop((gone.group, gone.version, gone.kind), None)

    def lookup(self, group: str, version: str, plural: str) -> ResourceType | None:
        """The type served at a path, or None."""
        return self._types.get((group, version, plural))

    def by_kind(self, group: str, version: str, kind: str) -> ResourceType | None:
        """The type of an object's apiVersion and kind, or None."""
        return self._kinds.get((group, version, kind))

    def all(self) -> list[ResourceType]:
        """Every type, built-in ones first."""
        return list(self._types.values())

    def crd_types(self, name: str) -> list[ResourceType]:
        """What the CRD of this name serves."""
        return list(self._crds.get(name, []))

    def groups(self) -> list[str]:
        """Group names in order, the core group (empty) first."""
        return list(dict.fromkeys(resource_type.group for resource_type in self._types.values()))

    def versions(self, group: str) -> list[str]:
        """The versions of a group, preferred first."""
        found = dict.fromkeys(t.version for t in self._types.values() if t.group == group)
        return sorted(found, key=version_priority)

    def __iter__(self) -> Iterator[ResourceType]:
        return iter(self.all())

    def _put(self, resource_type: ResourceType) -> None:
        key = (resource_type.group, resource_type.version, resource_type.plural)
        present = self._types.get(key)
        if present is not None and not present.is_crd:
            raise ValueError(f"{resource_type.group_resource} is built in")
        self._types[key] = resource_type
        self._kinds[resource_type.group, resource_type.version, resource_type.kind] = resource_type
