"""A pod's volumes as folders of this machine.

In: the pod's volumes and the ConfigMaps, Secrets and tokens they name. Out: one folder per volume below the
pod's folder (`hostPath` and claims excepted), and for each container the map from mount path to folder.
`render` is pure: a volume's files as data. `write_atomically` replaces all files of a volume in one step by
moving the `..data` link, as the kubelet does, so a program that follows a ConfigMap never sees half of an
update. Claims live outside the pod's folder and are never deleted here.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kaito.local.node.env import ConfigMissing, Lookup, PodFacts, expand, field_value, object_data, resource_value
from manager.types import Obj

_RENDERED = ("configMap", "secret", "downwardAPI", "projected")
_FOLDERS = ("emptyDir", "ephemeral")
_DEFAULT_MODE = 0o644
_REFERENCES = {
    "configMapRef": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
    "secretRef": "Secret",
    "secretKeyRef": "Secret",
}


class MountFailed(Exception):
    """A volume cannot be supplied; the message is shown in a FailedMount event and tried again."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a rendered volume."""

    data: bytes
    mode: int = _DEFAULT_MODE


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A service account token that a projected volume wants."""

    audience: str
    seconds: int


# token request → token
Tokens = Mapping[TokenRequest, str]


def references(pod: Obj) -> set[tuple[str, str]]:
    """The (kind, name) of every ConfigMap and Secret that the pod's volumes and environments name."""
    found: set[tuple[str, str]] = set()
    for _volume, source in _sources(pod):
        if "configMap" in source:
            found.add(("ConfigMap", source["configMap"].get("name", "")))
        if "secret" in source:
            found.add(("Secret", source["secret"].get("secretName") or source["secret"].get("name", "")))
    spec = pod["spec"]
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        sources = [*(container.get("envFrom") or [])]
        sources += [v["valueFrom"] for v in container.get("env") or [] if v.get("valueFrom")]
        for source in sources:
            for field, kind in _REFERENCES.items():
                if field in source:
                    found.add((kind, source[field]["name"]))
    return {(kind, name) for kind, name in found if name}


def token_requests(pod: Obj) -> set[TokenRequest]:
    """The tokens that the pod's projected volumes want."""
    return {_token_request(s["serviceAccountToken"]) for _v, s in _sources(pod) if "serviceAccountToken" in s}


def render(volume: Obj, facts: PodFacts, lookup: Lookup, tokens: Tokens) -> dict[str, File] | None:
    """The files of a volume by relative path; None when the volume is a plain folder.

    Raises:
        MountFailed: something that is not optional is absent.
    """
    for kind in _RENDERED:
        if kind in volume:
            source = volume[kind] or {}
            mode = source.get("defaultMode") or _DEFAULT_MODE
            parts = source.get("sources") or [] if kind == "projected" else [{kind: source}]
            files: dict[str, File] = {}
            for part in parts:
                files.update(_render_part(part, mode, facts, lookup, tokens))
            return files
    return None


def _render_part(part: Obj, mode: int, facts: PodFacts, lookup: Lookup, tokens: Tokens) -> dict[str, File]:
    if "configMap" in part:
        return _object_files("ConfigMap", part["configMap"].get("name", ""), part["configMap"], mode, lookup)
    if "secret" in part:
        name = part["secret"].get("secretName") or part["secret"].get("name", "")
        return _object_files("Secret", name, part["secret"], mode, lookup)
    if "serviceAccountToken" in part:
        wanted = part["serviceAccountToken"]
        return {_safe(wanted["path"]): File(tokens[_token_request(wanted)].encode(), 0o600)}
    if "downwardAPI" in part:
        files = {}
        for item in part["downwardAPI"].get("items") or []:
            files[_safe(item["path"])] = File(_downward(item, facts).encode(), item.get("mode") or mode)
        return files
    raise MountFailed(f"unsupported projected source {sorted(part)}")


def _downward(item: Obj, facts: PodFacts) -> str:
    try:
        if "fieldRef" in item:
            return field_value(item["fieldRef"]["fieldPath"], facts)
        wanted = item["resourceFieldRef"]
        for container in facts.pod["spec"].get("containers") or []:
            if container["name"] == wanted.get("containerName"):
                return resource_value(wanted, container, facts)
    except ConfigMissing as err:
        raise MountFailed(str(err)) from err
    raise MountFailed(f"resourceFieldRef names no container: {wanted.get('containerName')!r}")


def _object_files(kind: str, name: str, source: Obj, mode: int, lookup: Lookup) -> dict[str, File]:
    found = lookup(kind, name)
    optional = bool(source.get("optional"))
    if found is None:
        if optional:
            return {}
        raise MountFailed(f'{kind.lower()} "{name}" not found')
    data = object_data(kind, found)
    if not source.get("items"):
        return {_safe(key): File(value, mode) for key, value in data.items()}
    files = {}
    for item in source["items"]:
        if item["key"] in data:
            files[_safe(item["path"])] = File(data[item["key"]], item.get("mode") or mode)
        elif not optional:
            raise MountFailed(f"{kind.lower()} references non-existent config key: {item['key']}")
    return files


def _safe(path: str) -> str:
    """Refuse what would leave the volume or hide its bookkeeping."""
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts or parts[0].startswith(".."):
        raise MountFailed(f"invalid path in volume: {path!r}")
    return str(PurePosixPath(*parts))


def _token_request(wanted: Obj) -> TokenRequest:
    return TokenRequest(wanted.get("audience") or "", int(wanted.get("expirationSeconds") or 3600))


def _sources(pod: Obj) -> Iterator[tuple[Obj, Obj]]:
    for volume in pod["spec"].get("volumes") or []:
        if "projected" in volume:
            for part in volume["projected"].get("sources") or []:
                yield volume, part
        else:
            yield volume, volume


# folders


def prepare(pod: Obj, folder: Path, claims: Path, rendered: Mapping[str, Mapping[str, File]]) -> dict[str, Path]:
    """Make or refresh the folders of all volumes; volume name → folder (or file, for a hostPath file).

    Raises:
        MountFailed: a volume's kind is not supported here, or a hostPath is not what it should be.
    """
    places: dict[str, Path] = {}
    for volume in pod["spec"].get("volumes") or []:
        name = volume["name"]
        own = folder / name
        try:
            if name in rendered:
                own.mkdir(parents=True, exist_ok=True)
                write_atomically(own, rendered[name])
            elif "hostPath" in volume:
                own = _host_path(volume["hostPath"])
            elif "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                own = claims / f"{pod['metadata'].get('namespace', '')}_{claim}"
                own.mkdir(parents=True, exist_ok=True)
            elif any(kind in volume for kind in _FOLDERS) or set(volume) == {"name"}:
                own.mkdir(parents=True, exist_ok=True)
            else:
                raise MountFailed(f'volume "{name}" has a kind that a local node cannot supply: {sorted(volume)}')
        except OSError as err:
            raise MountFailed(f'volume "{name}": {err}') from err
        places[name] = own
    return places


def mounts(container: Obj, places: Mapping[str, Path], env: Mapping[str, str]) -> dict[str, str]:
    """Mount path → folder, for one container.

    Raises:
        MountFailed: a mount names no volume, or its subPath leaves the volume.
    """
    found = {}
    for mount in container.get("volumeMounts") or []:
        if mount["name"] not in places:
            raise MountFailed(f'volumeMount "{mount["mountPath"]}" names no volume: {mount["name"]}')
        place = places[mount["name"]]
        sub = mount.get("subPath") or expand(mount.get("subPathExpr") or "", env)
        if sub:
            if ".." in PurePosixPath(sub).parts:
                raise MountFailed(f"subPath must not contain '..': {sub}")
            place = place / sub.lstrip("/")
            if not place.exists():
                place.mkdir(parents=True)
        found[mount["mountPath"]] = str(place)
    return found


def _host_path(source: Obj) -> Path:
    path, kind = Path(source["path"]), source.get("type") or ""
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate":
        path.touch()
    elif kind == "Directory" and not path.is_dir():
        raise MountFailed(f"hostPath type check failed: {path} is not a directory")
    elif kind == "File" and not path.is_file():
        raise MountFailed(f"hostPath type check failed: {path} is not a file")
    return path


def write_atomically(folder: Path, files: Mapping[str, File]) -> bool:
    """Make `folder` show exactly `files`; False when it already did.

    The files lie in a hidden folder that the link `..data` names; top-level links lead through `..data`. A new set
    is complete before the link moves.
    """
    data = folder / "..data"
    if data.is_symlink() and _read(data) == dict(files):
        return False
    fresh = folder / f"..{secrets.token_hex(6)}"
    fresh.mkdir()
    for relative, file in files.items():
        path = fresh / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.data)
        path.chmod(file.mode)
    old = data.readlink() if data.is_symlink() else None
    moving = folder / "..data_tmp"
    moving.unlink(missing_ok=True)
    moving.symlink_to(fresh.name)
    moving.replace(data)
    top = {PurePosixPath(relative).parts[0] for relative in files}
    for name in top:
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(Path("..data") / name)
    for entry in os.scandir(folder):
        if not entry.name.startswith("..") and entry.name not in top:
            Path(entry.path).unlink()
    if old is not None:
        shutil.rmtree(folder / old, ignore_errors=True)
    return True


def _read(data: Path) -> dict[str, File]:
    found = {}
    for base, _folders, names in os.walk(data):
        for name in names:
            path = Path(base) / name
            found[str(path.relative_to(data))] = File(path.read_bytes(), path.stat().st_mode & 0o777)
    return found
