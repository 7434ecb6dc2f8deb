"""A model of the Hugging Face hub: which commit, which files, where their bytes are.

In: a repository and a revision. Out: a pinned commit with its files, their sizes and digests, and byte sources
for them. The library speaks to the hub's API; the bytes go through `inference_server.oci.download`, which
resumes, counts and checks every file (the library checks sizes only). Python files are left out unless they
were asked for: a model must not bring code along by surprise.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from inference_server.oci.download import ByteSource, Opened, opened
from inference_server.oci.errors import BadArtifact, Denied, FetchError, NotFound, Unreachable
from inference_server.threads import in_thread

_ALWAYS = (".json", ".txt", ".model", ".jinja", ".tiktoken")
_NEVER = ("training_args", "optimizer", "scheduler", "onnx", "tf_model", "flax_model", "rust_model")


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a commit. ``digest`` is None only where the hub knows none."""

    name: str
    size: int | None
    digest: str | None
    url: str


@dataclass(frozen=True, slots=True)
class HubCommit:
    """A revision that was looked up."""

    repo: str
    commit: str
    files: tuple[HubFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size or 0 for file in self.files)


@dataclass(slots=True)
class Hub:
    """One hub. The token is sent to the hub only, never to where it redirects to, and never shown."""

    session: aiohttp.ClientSession
    endpoint: str = field(default_factory=lambda: os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    token: str | None = field(default_factory=lambda: os.environ.get("HF_TOKEN") or None, repr=False)
    code: bool = False  # take Python files too

    async def look_up(self, repo: str, revision: str) -> HubCommit:
        """The commit of a revision and its files. One attempt. Raises FetchError."""

        def ask() -> HubCommit:
            from huggingface_hub import HfApi, hf_hub_url

            api = HfApi(endpoint=self.endpoint, token=self.token or False)
            try:
                info = api.model_info(repo, revision=revision, files_metadata=True, timeout=30)
            except Exception as error:
                raise _translated(error, repo, revision, with_token=self.token is not None) from error
            entries = {entry.rfilename: entry for entry in info.siblings or []}
            commit = info.sha or revision
            files = []
            for name in choose_files(entries, code=self.code):
                entry = entries[name]
                lfs = entry.lfs
                digest = f"sha256:{lfs.sha256}" if lfs else (f"git:{entry.blob_id}" if entry.blob_id else None)
                size = lfs.size if lfs else entry.size
                url = hf_hub_url(repo, name, revision=commit, endpoint=self.endpoint)
                files.append(HubFile(name, size, digest, url))
            return HubCommit(repo, commit, tuple(files))

        found = await in_thread("kaito-hub", ask)
        if not any(file.name.endswith((".safetensors", ".bin")) for file in found.files):
            raise BadArtifact(f"{repo} at {revision} has no weights as safetensors", "name another repository")
        return found

    def source(self, file: HubFile) -> ByteSource:
        """A file's bytes from any offset on."""

        @asynccontextmanager
        async def open_at(offset: int) -> AsyncIterator[Opened]:
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            if self.token:
                headers["Authorization"] = f"Bearer {self.token}"
            try:
                reply = await self.session.get(file.url, headers=headers)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise Unreachable(f"the hub cannot be reached: {error or type(error).__name__}") from error
            try:
                if reply.status not in (200, 206):
                    raise _of_status(reply, file.name)
                yield opened(reply, offset)
            finally:
                reply.close()

        return open_at


def choose_files(names: Iterable[str], *, code: bool = False) -> list[str]:
    """The files that an engine needs: settings, tokenizer, and the weights in one format.

    Weights: the safetensors of the common layout, else the publisher's own (``consolidated``), else ``.bin``.
    """
    top = sorted(name for name in names if "/" not in name and not name.startswith((".", *_NEVER)))
    chosen = [name for name in top if name.endswith(_ALWAYS) or (code and name.endswith(".py"))]
    tensors = [name for name in top if name.endswith(".safetensors")]
    common = [name for name in tensors if not name.startswith("consolidated")]
    weights = common or tensors or [name for name in top if name.endswith(".bin")]
    return sorted({*chosen, *weights})


def _translated(error: Exception, repo: str, revision: str, *, with_token: bool) -> FetchError:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return Denied(
            f"{repo} is gated and this token may not read it" if with_token else f"{repo} is gated",
            "accept its terms on the hub, and give the token of that account (HF_TOKEN)",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return NotFound(f"{repo} has no revision {revision}", "check its branches, tags and commits")
    if isinstance(error, errors.RepositoryNotFoundError):
        hint = "the token may lack the right to it" if with_token else "if it is private, set HF_TOKEN"
        return NotFound(f"the hub has no model {repo}, or hides it", f"check the name; {hint}")
    if isinstance(error, errors.HfHubHTTPError):
        status = getattr(getattr(error, "response", None), "status_code", 0)
        if status in (401, 403):
            return Denied(f"the hub denies {repo} ({status})", "check HF_TOKEN")
        if status == 404:
            return NotFound(f"the hub has no model {repo}", "check the name")
        return Unreachable(f"the hub answers {status} for {repo}")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return Denied(f"{repo} is not on this machine and HF_HUB_OFFLINE forbids to fetch it", "unset it")
    if isinstance(error, errors.HFValidationError):
        return NotFound(f"{repo!r} is not a repository's name", "write org/name")
    return Unreachable(f"the hub cannot be reached: {str(error)[:200] or type(error).__name__}")


def _of_status(reply: aiohttp.ClientResponse, name: str) -> FetchError:
    if reply.status in (401, 403):
        return Denied(f"the hub denies {name} ({reply.status})", "accept the model's terms, and check HF_TOKEN")
    if reply.status == 404:
        return NotFound(f"the hub no longer has {name}", "start again to look the revision up anew")
    if reply.status == 429 or reply.status >= 500:
        text = reply.headers.get("Retry-After", "")
        return Unreachable(
            f"the hub answers {reply.status}", retry_after=min(float(text), 600.0) if text.isdigit() else None
        )
    return BadArtifact(f"the hub answers {reply.status} for {name}")
