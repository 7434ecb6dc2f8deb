"""Small images and artifacts made in memory, for tests of whatever pulls them.

In: files. Out: blobs and a manifest, which can be pushed over HTTP to any registry without TLS, or written as
an OCI layout that skopeo reads. Nothing here checks anything: tests make broken images, too.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import aiohttp

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_Entry = tarfile.TarInfo | tuple[str, bytes]
_TITLE = "org.opencontainers.image.title"


@dataclass(frozen=True, slots=True)
class TestImage:
    """Blobs by digest, and the manifest."""

    __test__ = False  # not for pytest

    blobs: Mapping[str, bytes]
    manifest: bytes
    media_type: str

    @property
    def digest(self) -> str:
        """Digest of the manifest."""
        return digest_of(self.manifest)

    def write_layout(self, folder: Path, tag: str) -> Path:
        """As an OCI layout: ``skopeo copy oci:FOLDER:TAG ...``."""
        blobs = folder / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        for content in (*self.blobs.values(), self.manifest):
            (blobs / hashlib.sha256(content).hexdigest()).write_bytes(content)
        entry = _descriptor(self.manifest, self.media_type) | {
            "annotations": {"org.opencontainers.image.ref.name": tag}
        }
        (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        return folder

    async def push(
        self,
        session: aiohttp.ClientSession,
        host: str,
        repository: str,
        tag: str,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Push over plain HTTP; returns the reference."""
        base = f"http://{host}/v2/{repository}"
        for digest, content in self.blobs.items():
            async with session.post(f"{base}/blobs/uploads/", headers=headers) as reply:
                reply.raise_for_status()
                where = str(reply.url.join(type(reply.url)(reply.headers["Location"])))
            joint = "&" if "?" in where else "?"
            async with session.put(
                f"{where}{joint}digest={digest}", data=io.BytesIO(content), headers=headers
            ) as reply:
                reply.raise_for_status()
        typed = {**(headers or {}), "Content-Type": self.media_type}
        async with session.put(f"{base}/manifests/{tag}", data=self.manifest, headers=typed) as reply:
            reply.raise_for_status()
        return f"{host}/{repository}:{tag}"


def digest_of(content: bytes) -> str:
    """As registries write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def archive(entries: Mapping[str, bytes] | Iterable[_Entry], *, zipped: bool = True) -> bytes:
    """A layer of files, or of whatever headers a test comes up with."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in cast("Iterable[_Entry]", entries.items() if isinstance(entries, Mapping) else entries):
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.size = len(entry[1])
            tar.addfile(info, io.BytesIO(entry[1]))
    return gzip.compress(buffer.getvalue(), mtime=0) if zipped else buffer.getvalue()


def image(layers: Sequence[bytes], *, docker: bool = False) -> TestImage:
    """A container image of these layers, in Docker's or OCI's media types."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [_diff_id(x) for x in layers]},
        }
    ).encode()
    kind = DOCKER_LAYER if docker else OCI_LAYER
    config_kind = (
        "application/vnd.docker.container.image.v1+json" if docker else "application/vnd.oci.image.config.v1+json"
    )
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": _descriptor(config, config_kind),
        "layers": [_descriptor(layer, kind) for layer in layers],
    }
    return TestImage({digest_of(x): x for x in (config, *layers)}, json.dumps(manifest).encode(), media_type)


def artifact(files: Mapping[str, bytes]) -> TestImage:
    """An artifact with one layer a file, as ``oras push`` makes it."""
    layers = [
        _descriptor(content, "application/octet-stream") | {"annotations": {_TITLE: name}}
        for name, content in files.items()
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _descriptor(b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": layers,
    }
    blobs = {digest_of(x): x for x in (b"{}", *files.values())}
    return TestImage(blobs, json.dumps(manifest).encode(), OCI_MANIFEST)


def index(images: Mapping[str, TestImage]) -> TestImage:
    """An index of images by architecture; the images must be pushed by digest first."""
    entries = [
        _descriptor(one.manifest, one.media_type) | {"platform": {"os": "linux", "architecture": name}}
        for name, one in images.items()
    ]
    manifest = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return TestImage({}, json.dumps(manifest).encode(), OCI_INDEX)


def files_of(folder: Path) -> dict[str, bytes]:
    """A folder's files by relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _descriptor(content: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def _diff_id(layer: bytes) -> str:
    return digest_of(gzip.decompress(layer) if layer[:2] == b"\x1f\x8b" else layer)
