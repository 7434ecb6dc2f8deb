"""Credentials: every way that a kubeconfig or a pod has to name them ends in requests that carry them."""

from __future__ import annotations

import base64
import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaito.local.pki import Authority
from manager import kubeconfig
from manager.errors import ConfigError
from manager.kubeconfig import load_config

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:kubernetes_asyncio")


def write(
    path: Path, user: dict[str, Any], cluster: dict[str, Any] | None = None, namespace: str = "team"
) -> Path:
    """A kubeconfig with one context."""
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "clusters": [{"name": "k", "cluster": {"server": "https://127.0.0.1:7", **(cluster or {})}}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": namespace}}],
            }
        )
    )
    return path


async def test_a_token_and_inline_authority(tmp_path: Path) -> None:
    """A bearer token, CA data and the context's namespace are read."""
    authority = base64.b64encode(b"-----BEGIN CERTIFICATE-----\nx\n").decode()
    config = await load_config(write(tmp_path / "k", {"token": "t0k"}, {"certificate-authority-data": authority}))

    assert (config.server, config.token, config.namespace) == ("https://127.0.0.1:7", "t0k", "team")
    assert config.ca_data == b"-----BEGIN CERTIFICATE-----\nx\n"
    assert config.auth_header is None


async def test_a_client_certificate(tmp_path: Path) -> None:
    """Inline certificate and key end as files that TLS can load."""
    pair = Authority(tmp_path / "pki").client("alice", "alice", ["team"])
    cert, key = pair.certificate.read_bytes(), pair.key.read_bytes()
    user = {
        "client-certificate-data": base64.b64encode(cert).decode(),
        "client-key-data": base64.b64encode(key).decode(),
    }
    config = await load_config(write(tmp_path / "k", user))

    assert config.client_cert_file is not None
    assert config.client_key_file is not None
    assert Path(config.client_cert_file).read_bytes() == cert
    assert Path(config.client_key_file).read_bytes() == key


async def test_an_exec_plug_in_is_asked_again_when_its_token_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plug-in's token is used, and a later one after the refresh time."""
    count = tmp_path / "count"
    plugin = tmp_path / "plugin"
    credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    plugin.write_text(
        f"#!{sys.executable}\nimport json, pathlib\np = pathlib.Path({str(count)!r})\n"
        "n = int(p.read_text()) + 1 if p.exists() else 1\np.write_text(str(n))\n"
        f"print(json.dumps({{**{json.dumps(credential)}, 'status': {{'token': f'token-{{n}}'}}}}))\n"
    )
    plugin.chmod(stat.S_IRWXU)
    exec_config = {"apiVersion": credential["apiVersion"], "command": str(plugin), "args": [], "env": None}
    config = await load_config(write(tmp_path / "k", {"exec": exec_config}))
    assert config.auth_header is not None

    first = await config.auth_header()
    again = await config.auth_header()
    monkeypatch.setattr(kubeconfig, "_TOKEN_SECONDS", 0.0)
    later = await config.auth_header()

    assert first is not None
    assert first.startswith("Bearer token-")
    assert again == first
    assert later != first


async def test_in_cluster_reads_the_service_account_and_its_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pod's token, namespace and authority are used, and the token is read anew."""
    from kubernetes_asyncio.config import incluster_config

    (tmp_path / "token").write_text("first")
    (tmp_path / "namespace").write_text("kaito-system")
    (tmp_path / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\nca\n")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setattr(kubeconfig, "_SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setattr(kubeconfig, "_TOKEN_SECONDS", -1.0)
    config = await load_config()
    assert config.auth_header is not None
    before = await config.auth_header()
    (tmp_path / "token").write_text("second")

    assert (before, await config.auth_header()) == ("Bearer first", "Bearer second")
    assert (config.server, config.namespace) == ("https://10.0.0.1:443", "kaito-system")
    assert config.ca_data == b"-----BEGIN CERTIFICATE-----\nca\n"


async def test_nothing_configured_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any configuration the error names every place."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no --kubeconfig, no KUBECONFIG, not in a pod, no ~/\.kube/config"):
        await load_config()


@pytest.mark.parametrize("content", ["", "a: [", "clusters: 1\n", "current-context: x\ncontexts: []\n"])
async def test_a_broken_file_is_a_config_error(tmp_path: Path, content: str) -> None:
    """Whatever is wrong with the file, the error is this room's and names the file."""
    broken = tmp_path / "broken"
    broken.write_text(content)
    with pytest.raises(ConfigError, match="broken"):
        await load_config(broken)


async def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    """A kubeconfig that does not exist is named."""
    with pytest.raises(ConfigError, match="does not exist"):
        await load_config(tmp_path / "nowhere")
