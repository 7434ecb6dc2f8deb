"""Make ``kaito/local/apiserver/protobuf_fields.json``: the wire numbers of the built-in kinds' fields.

In: a folder with the Go packages ``k8s.io/api`` and ``k8s.io/apimachinery`` (Debian: the packages
golang-k8s-api-dev and golang-k8s-apimachinery-dev), whose struct tags carry JSON names and protobuf numbers.
Out: for each message that a built-in kind can hold, its fields as ``[number, JSON name, code]``. Codes are
explained in ``kaito/local/apiserver/protobuf.py``. Only names, numbers and types are taken.

Usage: python hack/protobuf_fields.py /usr/share/gocode/src/k8s.io
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from kaito.local.apiserver.builtin import BUILTIN_ROWS

_TARGET = Path(__file__).resolve().parent.parent / "kaito/local/apiserver/protobuf_fields.json"
_FIELD = re.compile(r'^\s+(?:(\w+)\s+)?([*\[\]\w.]+)\s+`json:"([^"]*)"[^`]*protobuf:"([^"]*)"')
_STRUCT = re.compile(r"^type (\w+) struct \{")
_NAMED = re.compile(r"^type (\w+) ([\w.\[\]]+)\s*$")
_IMPORT = re.compile(r'^\s+(?:(\w+) )?"k8s\.io/([^"]+)"')
_META = "apimachinery/pkg/apis/meta/v1"
_WELL_KNOWN = {
    "apimachinery/pkg/api/resource.Quantity": "q",
    "apimachinery/pkg/util/intstr.IntOrString": "o",
    "apimachinery/pkg/runtime.RawExtension": "r",
    "apimachinery/pkg/types.UID": "s",
    "apimachinery/pkg/types.NodeName": "s",
    f"{_META}.Time": "t",
    f"{_META}.MicroTime": "u",
    f"{_META}.Duration": "D",
    f"{_META}.FieldsV1": "f",
}
_SCALARS = {"string": "s", "bool": "b", "int32": "i", "int64": "i", "int": "i", "uint32": "i", "uint64": "i"}
_SCALARS |= {"uint8": "i", "uint16": "i", "float64": "d", "float32": "d", "[]byte": "y", "byte": "i"}
_EXTRA_KINDS = (
    ("autoscaling/v1", "Scale"),
    ("policy/v1", "Eviction"),
    ("authentication.k8s.io/v1", "TokenRequest"),
)


class Sources:
    """The Go packages, parsed on demand."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._packages: dict[str, tuple[dict[str, list[re.Match[str]]], dict[str, str], dict[str, str]]] = {}
        self.messages: dict[str, list[list[object]]] = {}

    def _package(self, path: str) -> tuple[dict[str, list[re.Match[str]]], dict[str, str], dict[str, str]]:
        if path not in self._packages:
            structs: dict[str, list[re.Match[str]]] = {}
            named: dict[str, str] = {}
            imports: dict[str, str] = {}
            for file in sorted((self._root / path).glob("*.go")):
                if file.name.startswith("zz_generated") or file.name.endswith(("_test.go", ".pb.go")):
                    continue
                current: list[re.Match[str]] | None = None
                for line in file.read_text().splitlines():
                    if found := _IMPORT.match(line):
                        imports[found[1] or found[2].rpartition("/")[2]] = found[2]
                    elif found := _STRUCT.match(line):
                        current = structs.setdefault(found[1], [])
                    elif line.startswith("}"):
                        current = None
                    elif found := _NAMED.match(line):
                        named[found[1]] = found[2]
                    elif current is not None and (found := _FIELD.match(line)):
                        current.append(found)
            self._packages[path] = structs, named, imports
        return self._packages[path]

    def code(self, package: str, go: str) -> str:
        """The code of a Go type."""
        if go in _SCALARS:
            return _SCALARS[go]
        structs, named, imports = self._package(package)
        if "." in go:
            prefix, _, name = go.partition(".")
            return self.code(imports[prefix], name)
        full = f"{package}.{go}"
        if full in _WELL_KNOWN:
            return _WELL_KNOWN[full]
        if go in structs:
            self.message(package, go)
            return f"M{full}"
        target = named[go]
        if target == "[]string":
            return "L"
        if target.startswith(("map[", "[]")):
            return self.whole(package, target)
        return self.code(package, target)

    def whole(self, package: str, go: str) -> str:
        """The code of a field's type, with its pointer, list or map mark."""
        if go.startswith("*"):
            return "*" + self.code(package, go[1:])
        if go in _SCALARS:
            return self.code(package, go)
        if go.startswith("[]"):
            return "[]" + self.code(package, go[2:])
        if go.startswith("map["):
            return "{}" + self.whole(package, go.partition("]")[2])
        return self.code(package, go)

    def message(self, package: str, name: str) -> None:
        """Take a struct and everything it holds."""
        full = f"{package}.{name}"
        if full in self.messages:
            return
        fields = self.messages[full] = []
        for match in self._package(package)[0][name]:
            json_name, *options = match[3].split(",")
            wire, number, *_ = match[4].split(",")
            code = self.whole(package, match[2])
            if "inline" in options:
                code = "~" + code.lstrip("*")
            elif "omitempty" in options and code in ("s", "i", "b", "d"):
                code += "?"
            if wire not in ("bytes", "varint", "fixed64"):
                raise SystemExit(f"{full}.{json_name}: wire type {wire} is new")
            fields.append([int(number), json_name, code])


def main() -> None:
    """Write the table."""
    sources = Sources(Path(sys.argv[1]))
    kinds: dict[str, str] = {}
    rows = [(f"{row.group}/{row.version}" if row.group else row.version, row.kind) for row in BUILTIN_ROWS]
    for api_version, kind in [*rows, *_EXTRA_KINDS]:
        group, _, version = api_version.rpartition("/")
        package = f"api/{group.partition('.')[0] or 'core'}/{version}"
        if not (sources._root / package).is_dir():
            continue  # apiextensions and apiregistration: their clients send JSON
        sources.message(package, kind)
        kinds[f"{api_version}/{kind}"] = f"{package}.{kind}"
    sources.message(_META, "DeleteOptions")
    kinds["*/DeleteOptions"] = f"{_META}.DeleteOptions"
    lines = [f"  {json.dumps(name)}: {json.dumps(fields)}" for name, fields in sorted(sources.messages.items())]
    text = '{{"kinds": {},\n"messages": {{\n{}\n}}}}\n'.format(
        json.dumps(kinds, sort_keys=True), ",\n".join(lines)
    )
    _TARGET.write_text(text)
    sys.stdout.write(f"{len(sources.messages)} messages, {len(text)} bytes\n")


if __name__ == "__main__":
    main()
