"""Workspaces as hypothesis strategies: such as are admitted, and such as nobody would write.

In: a schema of a CustomResourceDefinition, and the catalogue. Out: plain JSON. ``accepted`` makes what the rules
admit, free-form parts of every shape included; ``any_workspace`` starts from the schema and then breaks it; every
body that it makes is smaller than some kilobytes, large ones are a test's own business.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from api.catalog import presets, skus
from api.crds import workspace_crd
from api.model import Obj

Json: TypeAlias = SearchStrategy[Any]

_CHARACTERS = st.characters(codec="utf-8")  # lone surrogates are no JSON
_NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)


def json_values(*, nulls: bool = True) -> Json:
    """Any JSON of a few levels; numbers that every server keeps."""
    plain = [
        st.booleans(),
        st.integers(-(2**53), 2**53),
        st.floats(-1e9, 1e9, width=32).map(lambda number: number + 0.0),  # Go rewrites larger ones, and -0.0
        st.text(_CHARACTERS, max_size=20),
    ]
    leaves = st.one_of(*plain, *([st.none()] if nulls else []))
    keys = st.text(_CHARACTERS, min_size=1, max_size=10)

    def containers(inner: Json) -> Json:
        return st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)

    return st.recursive(leaves, containers, max_leaves=8)


def free_form(*, nulls: bool = True) -> SearchStrategy[Obj]:
    """An object of any content, as a pod template or a volume may be."""
    return st.dictionaries(st.text(_CHARACTERS, min_size=1, max_size=10), json_values(nulls=nulls), max_size=4)


# ------------------------------------------------------------------ what is admitted


@st.composite
def accepted(draw: st.DrawFn) -> Obj:
    """A Workspace that the default rules admit, with everything that a manifest may hold."""
    labels = st.dictionaries(st.sampled_from(["apps", "team", "example.com/pool"]), _NAMES, min_size=1)
    resource: Obj = {"labelSelector": {"matchLabels": draw(labels)}}
    if draw(st.booleans()):
        resource["preferredNodes"] = draw(st.lists(_NAMES, max_size=2))
    obj: Obj = {
        "apiVersion": draw(st.sampled_from(["kaito.sh/v1alpha1", "kaito.sh/v1beta1"])),
        "kind": "Workspace",
        "metadata": {"name": draw(_NAMES)},
        "resource": resource,
    }
    half = draw(st.sampled_from(["preset", "template", "tuning"]))
    if half == "tuning":
        obj["tuning"] = draw(_tuning())
    elif half == "template":
        obj["inference"] = {"template": draw(free_form(nulls=False))}
    else:
        newer = [item.name for item in presets() if item.era != "v0.3"]
        resource["instanceType"] = draw(st.sampled_from([item.instance_type for item in skus()]))
        preset = {"name": draw(st.sampled_from([*newer, "org/model"]))}
        obj["inference"] = {"preset": preset, "adapters": draw(_adapters())}
    return obj


def _images() -> SearchStrategy[str]:
    return st.builds("{}/{}:{}".format, st.sampled_from(["example.com", "host:5000"]), _NAMES, _NAMES)


@st.composite
def _adapters(draw: st.DrawFn) -> list[Obj]:
    found = []
    for name in draw(st.lists(_NAMES, max_size=3, unique=True)):
        source: Obj = {"name": name}
        if draw(st.booleans()):
            source["image"] = draw(_images())
        else:
            source["volumeSource"] = draw(free_form(nulls=False))
        strength = draw(st.none() | st.sampled_from(["0", "0.5", "1", "1.0", "1e-1"]))
        found.append({"source": source} | ({"strength": strength} if strength else {}))
    return found


@st.composite
def _tuning(draw: st.DrawFn) -> Obj:
    tunable = [item.name for item in presets() if item.tuning is not None]
    places: list[SearchStrategy[Obj]] = [
        st.builds(lambda name: {"urls": [f"https://example.com/{name}"]}, _NAMES),
        st.builds(lambda image: {"image": image}, _images()),
        st.builds(lambda volume: {"volumeSource": volume}, free_form(nulls=False)),
    ]
    output = draw(st.one_of(*places[1:]))
    if "image" in output:
        output["imagePushSecret"] = draw(_NAMES)
    return {
        "preset": {"name": draw(st.sampled_from(tunable))},
        "method": draw(st.sampled_from(["lora", "QLoRA"])),
        "input": draw(st.one_of(*places)),
        "output": output,
    }


# ------------------------------------------------------------------ what nobody would write

_PHRASES = (
    *("phi-3-mini-4k-instuct", "org/model", "Standard_NX", "Standard_Bad", "lora", "public", "private", "mig"),
    *("ACR_REPO_HERE.azurecr.io/IMAGE_NAME_HERE:0.0.1", "a/b:1", "a/B:1", "nginx", "@", ":", "/", "0.5"),
    *("https://example.com/a", "http://127.1/", "http://[", "file:///etc/passwd", "In", "Exists", "", " "),
    *("A_" * 200, "x" * 300, "é" * 100, "<" * 100, "1" * 400, "nan", "3g.40gb", "../..", "${jndi}", "\x00"),
)
_WORDS = st.sampled_from(
    [*(item.name for item in presets()[:20]), *(item.instance_type for item in skus()[:10]), *_PHRASES]
)


def any_workspace() -> SearchStrategy[Obj]:
    """Objects that keep the schema here and break it there, admitted ones among them."""
    schema = workspace_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    keys = ["kaito.sh/runtime", "kaito.sh/performance-mode", "kaito.sh/bypass-resource-checks", "x"]
    annotations = st.dictionaries(st.sampled_from(keys), _WORDS, max_size=2)
    fields = {"annotations": annotations, "deletionTimestamp": st.just("2026-01-01T00:00:00Z")}
    metadata = _mostly(st.fixed_dictionaries({"name": _NAMES | _WORDS}, optional=fields))
    versions = st.sampled_from(["kaito.sh/v1alpha1", "kaito.sh/v1beta1"])
    head = st.fixed_dictionaries({"apiVersion": versions, "kind": st.just("Workspace"), "metadata": metadata})
    body = _object(schema, skip=("apiVersion", "kind", "metadata", "status"))
    schematic = st.builds(lambda first, rest: {**rest, **first}, head, body)
    return _chosen(schematic, schematic, accepted(), accepted(), accepted(), free_form())


def _chosen(*strategies: SearchStrategy[Obj]) -> SearchStrategy[Obj]:
    """Each as often as it is named."""
    return st.sampled_from(range(len(strategies))).flatmap(lambda number: strategies[number])


def _mostly(regular: Json) -> Json:
    """What it should be, and now and then anything at all."""
    return st.integers(0, 15).flatmap(lambda dice: json_values() if dice == 0 else regular)


def _regular(schema: Obj) -> Json:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "string":
        return _WORDS | st.text(_CHARACTERS, max_size=30)
    if kind == "integer":
        return st.integers(-2, 5) | st.integers(-(2**63), 2**63 - 1)
    if kind == "array":
        return st.lists(_mostly(_regular(schema["items"])), max_size=12)
    if "properties" in schema:
        return _object(schema)
    if isinstance(schema.get("additionalProperties"), dict):
        return st.dictionaries(_WORDS, _mostly(_regular(schema["additionalProperties"])), max_size=3)
    return free_form()


def _object(schema: Obj, skip: tuple[str, ...] = ()) -> SearchStrategy[Obj]:
    """An object by its schema; one in ten has a field too many."""
    fields = {name: _mostly(_regular(value)) for name, value in schema["properties"].items() if name not in skip}
    needed = {name: fields.pop(name) for name in schema.get("required", ()) if name in fields}
    known: SearchStrategy[Obj] = st.fixed_dictionaries(needed, optional=fields)
    stray = st.dictionaries(
        st.sampled_from([f"{name}s" for name in schema["properties"]]), json_values(), max_size=1
    )
    extended = st.builds(lambda base, more: {**base, **more}, known, stray)
    return st.integers(0, 9).flatmap(lambda dice: extended if dice == 0 else known)
