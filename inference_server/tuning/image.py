"""An adapter as an OCI image, byte for byte.

In: files, facts about the run, perhaps a base image. Out: an ``Image``: a gzipped layer with the files under /data
on the disk, a configuration and a manifest as bytes. Nothing in it depends on the clock or the machine, so the
same adapter is the same image. Without a base it has this one layer and nothing to run: that is enough for our
server and for upstream since 0.5, which unpack it. Upstream 0.3 runs ``cp`` inside the image (an init container)
and needs a base that has one, such as busybox.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
FOLDER: Final = "data"
_COPY: Final = 1 << 20
_LEVEL: Final = 1  # weights are noise to a compressor; more effort costs minutes and gains nothing


@dataclass(frozen=True, slots=True)
class Blob:
    """Something to upload: bytes, or a file."""

    digest: str
    size: int
    media_type: str
    data: bytes | Path

    def descriptor(self) -> dict[str, Any]:
        """As manifests name it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True)
class BaseImage:
    """What the layer is put on: its layers as a manifest lists them, and its configuration."""

    layers: Sequence[Mapping[str, Any]] = ()
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Image:
    """What is pushed. ``manifest`` goes last."""

    layer: Blob
    config: Blob
    manifest: Blob


def build(
    files: Mapping[str, Path], folder: Path, *, labels: Mapping[str, str], base: BaseImage | None = None
) -> Image:
    """Writes the layer into ``folder`` and computes the rest. ``files`` maps names below /data to files."""
    base = base or BaseImage()
    layer, diff_id = _layer(files, folder / "layer.tar.gz")
    config = _blob(CONFIG_TYPE, _config(base.config, diff_id, labels))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config.descriptor(),
        "layers": [*base.layers, layer.descriptor()],
        "annotations": dict(labels),
    }
    return Image(layer, config, _blob(MANIFEST_TYPE, manifest))


def _config(base: Mapping[str, Any], diff_id: str, labels: Mapping[str, str]) -> dict[str, Any]:
    inner = dict(base.get("config") or {})
    step = {"created_by": f"kaito tune: /{FOLDER}", "comment": "LoRA adapter"}
    return {
        "architecture": base.get("architecture", "amd64"),
        "os": base.get("os", "linux"),
        "config": {**inner, "Labels": {**(inner.get("Labels") or {}), **labels}},
        "rootfs": {"type": "layers", "diff_ids": [*_diff_ids(base), diff_id]},
        "history": [*(base.get("history") or []), step],
    }


def _diff_ids(base: Mapping[str, Any]) -> list[str]:
    return list((base.get("rootfs") or {}).get("diff_ids") or [])


def _blob(media_type: str, fields: Mapping[str, Any]) -> Blob:
    data = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    return Blob(f"sha256:{hashlib.sha256(data).hexdigest()}", len(data), media_type, data)


def _layer(files: Mapping[str, Path], path: Path) -> tuple[Blob, str]:
    """The layer's file, and the digest of the archive inside it."""
    with path.open("wb") as raw:
        packed = _Hashed(raw)
        with gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=packed, mtime=0) as squeezed:
            plain = _Hashed(squeezed)
            with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_COPY) as archive:
                archive.addfile(_entry(FOLDER, tarfile.DIRTYPE, 0o755))
                for name in sorted(files):
                    entry = _entry(f"{FOLDER}/{name}", tarfile.REGTYPE, 0o644)
                    entry.size = files[name].stat().st_size
                    with files[name].open("rb") as source:
                        archive.addfile(entry, source)
    return Blob(packed.digest, packed.size, LAYER_TYPE, path), plain.digest


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    return entry  # owner root, time zero: TarInfo's own defaults


class _Hashed(io.RawIOBase):
    """Writes through and keeps count."""

    def __init__(self, target: IO[bytes] | gzip.GzipFile) -> None:
        self._target = target
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        self._hash.update(data)
        self.size += len(data)
        self._target.write(data)
        return len(data)

    @property
    def digest(self) -> str:
        """Of what was written."""
        return f"sha256:{self._hash.hexdigest()}"
