"""Finding the cluster: kubeconfig files and the pod's own service account become a ``RestConfig``.

Precedence: argument, ``KUBECONFIG``, in-cluster, ``~/.kube/config``. What is plain data (addresses, authorities,
tokens, certificates, files of them) is read here. What takes more than reading, exec plug-ins and the old auth
providers, is kubernetes_asyncio's work, and only then that package is imported: it costs half a second to two and
112 MB, which no command and no pod with a service account has to pay. This is its only importer. A test holds the
two readings together. No secret gets into a message: neither YAML's excerpts nor values.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import logging
import os
import shutil
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from manager.config import RestConfig
from manager.credentials import Credential, Issued, Renewed, TokenFile, bearer
from manager.errors import ConfigError

if TYPE_CHECKING:
    from kubernetes_asyncio.config.kube_config import ConfigNode

log = logging.getLogger("kaito.manager.kubeconfig")

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PROVIDER_SECONDS = 60.0  # how long a token of an auth provider, which tells no end, is used without asking


async def load_config(kubeconfig: str | Path | None = None, context: str | None = None) -> RestConfig:
    """The configuration to use. No plug-in runs and nothing is connected yet.

    Args:
        kubeconfig: a file, or several separated as in ``KUBECONFIG``.
        context: the context to use instead of the current one.

    Raises:
        ConfigError: nothing was found, or what was found cannot be used; says where it looked.
    """
    named = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG", "")
    if named:
        return _from_files(named, context)
    if os.environ.get("KUBERNETES_SERVICE_HOST") and (_SERVICE_ACCOUNT / "token").exists():
        return _in_cluster()
    default = Path.home() / ".kube" / "config"
    if default.exists():
        return _from_files(str(default), context)
    raise ConfigError("no cluster configured: no --kubeconfig, no KUBECONFIG, not in a pod, no ~/.kube/config")


# ------------------------------------------------------------------ the pod's own account


def _in_cluster() -> RestConfig:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT") or "443"
    authority = _SERVICE_ACCOUNT / "ca.crt"
    try:
        if not authority.read_bytes().strip():
            raise ConfigError(f"the pod's service account cannot be used: {authority} is empty")
        namespace = (_SERVICE_ACCOUNT / "namespace").read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the pod's service account cannot be used: {error}") from error
    server = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    return RestConfig(
        server=server,
        ca_file=str(authority),
        namespace=namespace or "default",
        credential=TokenFile(_SERVICE_ACCOUNT / "token"),
        proxy=_environment_proxy(server),
    )


# ------------------------------------------------------------------ kubeconfig files


@dataclass(frozen=True, slots=True)
class _Entry:
    """One named entry, and the folder that its relative paths are of."""

    value: Mapping[str, Any] = field(repr=False)
    folder: Path

    def text(self, key: str) -> str:
        found = self.value.get(key)
        if found is not None and not isinstance(found, str):
            raise ConfigError(f"{key} is not text")
        return found or ""

    def path(self, key: str) -> str | None:
        return str(self.folder / Path(self.text(key)).expanduser()) if self.text(key) else None

    def data(self, key: str) -> bytes | None:
        try:
            return base64.b64decode(self.text(key), validate=True) if self.text(key) else None
        except (binascii.Error, ValueError):
            raise ConfigError(f"{key} is not base64") from None


def _from_files(paths: str, context: str | None) -> RestConfig:
    files = [Path(file).expanduser() for file in paths.split(os.pathsep) if file]
    files = [file for file in files if file.exists()]
    if not files:
        raise ConfigError(f"the kubeconfig {paths} does not exist")
    try:
        return _build(paths, _merged(files), context)
    except ConfigError as error:
        raise ConfigError(f"the kubeconfig {paths} cannot be used: {error}") from error.__cause__


_Merged = dict[str, dict[str, _Entry]]


def _merged(files: list[Path]) -> tuple[str, _Merged]:
    """The current context, and all entries; what two files define counts as the first one says, as for kubectl."""
    import yaml

    current = ""
    entries: _Merged = {"clusters": {}, "users": {}, "contexts": {}}
    for file in files:
        try:
            content = yaml.safe_load(file.read_text())
        except OSError as error:
            raise ConfigError(str(error)) from error
        except UnicodeDecodeError:
            raise ConfigError(f"{file} is not text") from None
        except yaml.YAMLError as error:
            # The error's own text quotes the file, and with it perhaps a token.
            mark = getattr(error, "problem_mark", None)
            line = f" at line {mark.line + 1}" if mark is not None else ""
            raise ConfigError(f"{file} is not YAML{line}") from None
        if not isinstance(content, dict):
            raise ConfigError(f"{file} is {'empty' if content is None else 'not a mapping'}")
        found = content.get("current-context")
        current = current or (found if isinstance(found, str) else "")
        for section, known in entries.items():
            items = content.get(section) or []
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise ConfigError(f"{section} of {file} is not a list of entries")
            for item in items:
                value = item.get(section[:-1]) or {}
                if not isinstance(value, dict):
                    raise ConfigError(f"an entry of {section} in {file} is not a mapping")
                known.setdefault(str(item.get("name") or ""), _Entry(value, file.absolute().parent))
    return current, entries


def _named(entries: _Merged, section: str, name: str) -> _Entry:
    try:
        return entries[section][name]
    except KeyError:
        raise ConfigError(f"it has no {section[:-1]} named {name!r}") from None


def _build(paths: str, merged: tuple[str, _Merged], context: str | None) -> RestConfig:
    current, entries = merged
    chosen = context or current
    if not chosen:
        raise ConfigError("it has no current-context, and none was named")
    about = _named(entries, "contexts", chosen)
    cluster = _named(entries, "clusters", about.text("cluster"))
    user = _named(entries, "users", about.text("user")) if about.text("user") else _Entry({}, Path())
    server = cluster.text("server").rstrip("/")
    if urlsplit(server).scheme not in ("http", "https"):
        raise ConfigError(f"the server {server!r} of its cluster is no http or https URL")
    token, credential = _authentication(paths, chosen, user)
    insecure = cluster.value.get("insecure-skip-tls-verify") or False
    if not isinstance(insecure, bool):
        raise ConfigError("insecure-skip-tls-verify is neither true nor false")
    return RestConfig(
        server=server,
        ca_data=cluster.data("certificate-authority-data"),
        ca_file=cluster.path("certificate-authority"),
        token=token,
        credential=credential,
        client_cert_data=user.data("client-certificate-data"),
        client_key_data=user.data("client-key-data"),
        client_cert_file=user.path("client-certificate"),
        client_key_file=user.path("client-key"),
        verify=not insecure,
        tls_server_name=cluster.text("tls-server-name") or None,
        namespace=about.text("namespace") or "default",
        impersonate=_impersonation(user),
        proxy=_proxy(cluster.text("proxy-url")) or _environment_proxy(server),
    )


def _authentication(paths: str, context: str, user: _Entry) -> tuple[str | None, Credential | None]:
    """A token that stays, or a credential that changes. A token wins over a plug-in, as for kubectl."""
    if token := user.text("token"):
        bearer(token)  # refused here, not at the first request
        return token, None
    if file := user.path("tokenFile"):
        return None, TokenFile(file)
    if user.text("username"):
        pair = f"{user.text('username')}:{user.text('password')}".encode()
        header = f"Basic {base64.b64encode(pair).decode()}"

        async def known() -> Issued:
            return Issued(header)

        return None, Renewed(known, "username and password")
    if plugin := user.value.get("exec"):
        return None, _Plugin(plugin, user.folder).credential()
    if provider := user.value.get("auth-provider"):
        name = provider.get("name") if isinstance(provider, dict) else provider
        return None, Renewed(lambda: _from_provider(paths, context), f"the auth provider {name}")
    return None, None


def _impersonation(user: _Entry) -> tuple[tuple[str, str], ...]:
    groups = user.value.get("as-groups") or []
    pairs = [("Impersonate-User", user.text("as")), ("Impersonate-Uid", user.text("as-uid"))]
    pairs += [("Impersonate-Group", str(group)) for group in groups]
    return tuple((name, value) for name, value in pairs if value)


# ------------------------------------------------------------------ plug-ins: the library's work


class _Plugin:
    """An exec plug-in (client.authentication.k8s.io)."""

    def __init__(self, spec: Any, folder: Path) -> None:
        if not isinstance(spec, dict) or not spec.get("command") or not spec.get("apiVersion"):
            raise ConfigError("its exec plug-in has no command or no apiVersion")
        command = str(spec["command"])
        if os.sep in command:
            command = str(folder / Path(command).expanduser())
        self._spec = {**spec, "command": command, "args": spec.get("args") or None, "env": spec.get("env") or None}
        self._command = command

    def credential(self) -> Renewed:
        return Renewed(self._ask, f"the exec plug-in {self._command}")

    async def _ask(self) -> Issued:
        from kubernetes_asyncio.config.exec_provider import ExecProvider

        if shutil.which(self._command) is None:
            hint = self._spec.get("installHint")
            raise ConfigError(f"the exec plug-in {self._command} is not there{f'; {hint}' if hint else ''}")
        status = await ExecProvider(_node(self._spec)).run()
        token, cert, key = (status.get(name) or "" for name in ("token", "clientCertificateData", "clientKeyData"))
        if not token and not (cert and key):
            raise ConfigError(
                f"the exec plug-in {self._command} gave neither a token nor a certificate with its key"
            )
        return Issued(
            bearer(token) if token else "",
            (cert.encode(), key.encode()) if cert and key else None,
            _seconds_until(status.get("expirationTimestamp")),
        )


def _node(value: dict[str, Any]) -> ConfigNode:
    from kubernetes_asyncio.config.kube_config import ConfigNode

    return ConfigNode("exec", value)


async def _from_provider(paths: str, context: str) -> Issued:
    from kubernetes_asyncio import config as loader
    from kubernetes_asyncio.client import Configuration

    loaded = Configuration()
    await loader.load_kube_config(config_file=paths, context=context, client_configuration=loaded)
    header = str((loaded.api_key or {}).get("BearerToken") or "")
    return Issued(bearer(header.removeprefix("Bearer ")), lifetime=_PROVIDER_SECONDS)


def _seconds_until(timestamp: Any) -> float | None:
    if not timestamp:
        return None
    try:
        end = datetime.fromisoformat(str(timestamp).replace("Z", "+00:00"))
    except ValueError:
        log.warning("credential's expirationTimestamp not understood value=%s", timestamp)
        return None
    return ((end if end.tzinfo else end.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()


# ------------------------------------------------------------------ proxies


def _proxy(url: str) -> str | None:
    if url and urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(f"proxy-url: only http and https proxies are supported, not {urlsplit(url).scheme}")
    return url or None


def _environment_proxy(server: str) -> str | None:
    """What ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` say about this server, in Go's reading: never for this
    machine itself, and ``NO_PROXY`` may name networks."""
    parts = urlsplit(server)
    host = parts.hostname or ""
    found = urllib.request.getproxies_environment().get(parts.scheme)
    if not found or host == "localhost" or urllib.request.proxy_bypass(host):
        return None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _proxy(found)
    if address.is_loopback:
        return None
    for entry in (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").split(","):
        try:
            if address in ipaddress.ip_network(entry.strip(), strict=False):
                return None
        except ValueError:
            continue  # a name
    return _proxy(found)
