"""Finding the cluster: kubeconfig files and the pod's own service account become a ``RestConfig``.

The only module that imports kubernetes_asyncio, inside its functions: the import costs 1.6 s and 112 MB. It is
used for what it does well, reading configuration and credentials (static tokens, client certificates, exec
plug-ins, in-cluster tokens), and for nothing else. Precedence: argument, ``KUBECONFIG``, in-cluster,
``~/.kube/config``.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manager.config import RestConfig
from manager.errors import ConfigError

if TYPE_CHECKING:
    from kubernetes_asyncio.client import Configuration

log = logging.getLogger("kaito.manager.kubeconfig")

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_SECONDS = 60.0  # the kubelet rotates service account tokens; exec plug-ins' tokens expire


async def load_config(kubeconfig: str | Path | None = None, context: str | None = None) -> RestConfig:
    """The configuration to use.

    Raises:
        ConfigError: nothing was found, or what was found cannot be used; says where it looked.
    """
    named = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG", "")
    if named:
        return await _from_file(named, context)
    if os.environ.get("KUBERNETES_SERVICE_HOST") and (_SERVICE_ACCOUNT / "token").exists():
        return _in_cluster()
    default = Path.home() / ".kube" / "config"
    if default.exists():
        return await _from_file(str(default), context)
    raise ConfigError("no cluster configured: no --kubeconfig, no KUBECONFIG, not in a pod, no ~/.kube/config")


async def _from_file(path: str, context: str | None) -> RestConfig:
    from kubernetes_asyncio import config as loader
    from kubernetes_asyncio.client import Configuration

    files = [file for file in path.split(os.pathsep) if file]
    if not any(Path(file).exists() for file in files):
        raise ConfigError(f"the kubeconfig {path} does not exist")

    async def load() -> Configuration:
        loaded = Configuration()
        await loader.load_kube_config(config_file=path, context=context, client_configuration=loaded)
        return loaded

    try:
        loaded = await load()
        contexts, current = loader.list_kube_config_contexts(config_file=path)
        chosen = current if context is None else next(c for c in contexts or [] if c["name"] == context)
        active: dict[str, Any] = dict(chosen or {})
    except Exception as error:
        # The loader raises ConfigException, and yaml, OS and key errors for files that are broken in other ways.
        raise ConfigError(f"the kubeconfig {path} cannot be used: {error}") from error
    user = _user(path, active)
    refresh = None
    if user.get("exec") or user.get("auth-provider"):
        refresh = _refreshing(load, _bearer(loaded))
    elif user.get("tokenFile") and not user.get("token"):
        refresh = _token_file(Path(files[0]).parent / user["tokenFile"])
    return RestConfig(
        server=str(loaded.host),
        ca_data=_read(loaded.ssl_ca_cert, path),
        token=_bearer(loaded),
        client_cert_file=loaded.cert_file,
        client_key_file=loaded.key_file,
        verify=bool(loaded.verify_ssl),
        tls_server_name=getattr(loaded, "tls_server_name", None),
        namespace=str((active.get("context") or {}).get("namespace") or "default"),
        auth_header=refresh,
        proxy=getattr(loaded, "proxy", None),
    )


def _in_cluster() -> RestConfig:
    from kubernetes_asyncio import config as loader
    from kubernetes_asyncio.client import Configuration

    loaded = Configuration()
    try:
        loader.load_incluster_config(client_configuration=loaded)
        namespace = (_SERVICE_ACCOUNT / "namespace").read_text().strip()
    except Exception as error:
        raise ConfigError(f"the pod's service account cannot be used: {error}") from error
    return RestConfig(
        server=str(loaded.host),
        ca_data=_read(loaded.ssl_ca_cert, str(_SERVICE_ACCOUNT)),
        namespace=namespace or "default",
        auth_header=_token_file(_SERVICE_ACCOUNT / "token"),
    )


def _token_file(path: Path) -> Callable[[], Awaitable[str | None]]:
    """The header of a token file that the kubelet replaces from time to time."""
    state: dict[str, Any] = {"read": float("-inf"), "header": None}

    async def header() -> str | None:
        if time.monotonic() - state["read"] > _TOKEN_SECONDS:
            try:
                state["header"] = f"Bearer {path.read_text().strip()}"
            except OSError as error:
                log.warning("service account token not read, keeping the old one error=%s", error)
            state["read"] = time.monotonic()
        found: str | None = state["header"]
        return found

    return header


def _refreshing(
    load: Callable[[], Awaitable[Configuration]], first: str | None
) -> Callable[[], Awaitable[str | None]]:
    """The header of a credential plug-in, asked again once a minute. Several loops may call it: the elector has
    its own."""
    state: dict[str, Any] = {
        "read": time.monotonic() if first else float("-inf"),
        "header": f"Bearer {first}" if first else None,
    }
    guard = threading.Lock()

    async def header() -> str | None:
        if time.monotonic() - state["read"] > _TOKEN_SECONDS and guard.acquire(blocking=False):
            try:
                token = _bearer(await load())
                state["header"] = f"Bearer {token}" if token else None
                state["read"] = time.monotonic()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                if state["header"] is None:
                    raise ConfigError(f"the kubeconfig's credential plug-in failed: {error}") from error
                log.warning("credential plug-in failed, keeping the old token error=%s", error)
                state["read"] = time.monotonic()
            finally:
                guard.release()
        while state["header"] is None and guard.locked():
            await asyncio.sleep(0.01)  # another loop's first call is under way
        found: str | None = state["header"]
        return found

    return header


def _bearer(loaded: Configuration) -> str | None:
    value = (loaded.api_key or {}).get("BearerToken")
    return str(value).removeprefix("Bearer ").strip() if value else None


def _user(path: str, active: dict[str, Any]) -> dict[str, Any]:
    import yaml

    name = (active.get("context") or {}).get("user")
    for file in path.split(os.pathsep):
        if not Path(file).exists():
            continue
        content = yaml.safe_load(Path(file).read_text()) or {}
        for entry in content.get("users") or []:
            if entry.get("name") == name:
                return dict(entry.get("user") or {})
    return {}


def _read(file: str | None, source: str) -> bytes | None:
    if not file:
        return None
    try:
        raw = Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(f"the certificate authority of {source} cannot be read: {error}") from error
    return raw if raw.lstrip().startswith(b"-----") else base64.b64decode(raw)
