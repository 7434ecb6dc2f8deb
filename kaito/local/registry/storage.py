"""The registry's folder: blobs by digest, manifests and tags by repository, uploads on their way.

In: bytes and names that were checked. Out: files. Whatever has its final name is whole: it got it by a rename,
after its digest was computed. Two processes on one folder are not meant.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest's bytes as they were pushed."""

    digest: str
    media_type: str
    body: bytes


def digest_of(path: Path) -> str:
    """The digest of a file. Blocking."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


class Storage:
    """See the module."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self._uploads = root / "uploads"
        self._repositories = root / "repositories"
        for folder in (self._blobs, self._uploads, self._repositories):
            folder.mkdir(parents=True, exist_ok=True)

    # -- blobs ---------------------------------------------------------------------------------------------------

    def blob(self, digest: str) -> Path:
        """Where a blob is, or would be."""
        return self._blobs / digest.replace(":", "-")

    def begin(self) -> str:
        """A new upload's id."""
        name = uuid.uuid4().hex
        self.upload(name).touch()
        return name

    def upload(self, name: str) -> Path:
        """An upload's file."""
        return self._uploads / name

    def finish(self, name: str, digest: str) -> bool:
        """Make an upload a blob; False, and the upload is gone, when its digest is another one. Blocking."""
        path = self.upload(name)
        if digest_of(path) != digest:
            path.unlink()
            return False
        path.rename(self.blob(digest))
        return True

    # -- manifests -----------------------------------------------------------------------------------------------

    def put_manifest(self, repository: str, reference: str, media_type: str, body: bytes) -> str:
        """Store a manifest, under its digest and, if ``reference`` is one, a tag. Returns the digest."""
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        blob = self.blob(digest)
        if not blob.exists():
            _replace(blob, body)
        _replace(self._link(repository, digest), json.dumps({"mediaType": media_type}).encode())
        if not DIGEST.fullmatch(reference):
            _replace(self._tags(repository) / reference, digest.encode())
        return digest

    def manifest(self, repository: str, reference: str) -> StoredManifest | None:
        """A manifest by tag or digest."""
        try:
            digest = reference
            if not DIGEST.fullmatch(reference):
                digest = (self._tags(repository) / reference).read_text()
            media_type = json.loads(self._link(repository, digest).read_text())["mediaType"]
            return StoredManifest(digest, media_type, self.blob(digest).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def delete_manifest(self, repository: str, reference: str) -> bool:
        """Forget a tag, or a manifest with all its tags. Blobs stay: this is a registry for a laptop."""
        if not DIGEST.fullmatch(reference):
            return _unlink(self._tags(repository) / reference)
        for tag in self.tags(repository) or []:
            if (self._tags(repository) / tag).read_text() == reference:
                _unlink(self._tags(repository) / tag)
        return _unlink(self._link(repository, reference))

    def tags(self, repository: str) -> list[str] | None:
        """Tags in order; None for an unknown repository."""
        folder = self._tags(repository)
        if not folder.is_dir():
            return None
        return sorted(entry.name for entry in folder.iterdir() if TAG.fullmatch(entry.name))

    def repositories(self) -> list[str]:
        """All repositories that something was pushed to."""
        found = self._repositories.rglob("_manifests")
        return sorted(str(folder.parent.relative_to(self._repositories)) for folder in found)

    def _tags(self, repository: str) -> Path:
        return self._repositories / repository / "_tags"

    def _link(self, repository: str, digest: str) -> Path:
        return self._repositories / repository / "_manifests" / digest.replace(":", "-")


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{uuid.uuid4().hex}")
    draft.write_bytes(content)
    draft.replace(path)


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
