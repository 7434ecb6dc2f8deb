"""Finding the cluster: every way that a kubeconfig or a pod has to name it ends in a configuration that works."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaito.local.pki import Authority
from manager import kubeconfig
from manager.client import Client
from manager.config import RestConfig
from manager.credentials import TokenFile
from manager.errors import ConfigError, ManagerError
from manager.kubeconfig import load_config
from manager.resources import CONFIGMAPS
from manager.testing.raw import Exchange, RawServer, answering

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:kubernetes_asyncio")

SECRET = "do-not-tell-anybody"


def content(
    user: dict[str, Any], cluster: dict[str, Any] | None = None, *, name: str = "c", **context: str
) -> dict[str, Any]:
    """A kubeconfig with one context, cluster and user of that name."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": "https://127.0.0.1:7", **(cluster or {})}}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, **context}}],
    }


def write(path: Path, user: dict[str, Any], cluster: dict[str, Any] | None = None, **context: str) -> Path:
    path.write_text(yaml.safe_dump(content(user, cluster, **context)))
    return path


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


# ------------------------------------------------------------------ what is plain data


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    """A folder with ca.crt, user.crt, user.key and token."""
    folder = tmp_path / "pki"
    authority = Authority(folder)
    authority.client("user", "someone", ["team"])
    (folder / "token").write_text("from-a-file")
    return folder


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "token": ({"token": "t0k"}, {}),
    "token file": ({"tokenFile": "pki/token"}, {}),
    "token over its file": ({"token": "t0k", "tokenFile": "pki/token"}, {}),
    "password": ({"username": "ann", "password": "p:w"}, {}),
    "certificate files": ({"client-certificate": "pki/user.crt", "client-key": "pki/user.key"}, {}),
    "certificate data": ({"client-certificate-data": "@user.crt", "client-key-data": "@user.key"}, {}),
    "data over files": (
        {"client-certificate": "no", "client-certificate-data": "@user.crt", "client-key-data": "@user.key"},
        {},
    ),
    "authority file": ({}, {"certificate-authority": "pki/ca.crt"}),
    "authority data": ({}, {"certificate-authority-data": "@ca.crt"}),
    "insecure": ({"token": "t"}, {"insecure-skip-tls-verify": True}),
    "server name": ({}, {"tls-server-name": "api.example.com"}),
    "proxy": ({}, {"proxy-url": "http://proxy.example.com:3128"}),
    "path": ({}, {"server": "https://rancher.example.com/k8s/clusters/c-1/"}),
    "plain http": ({"token": "t"}, {"server": "http://127.0.0.1:8001"}),
}


@pytest.mark.parametrize("case", CASES)
async def test_it_is_read_as_the_library_reads_it(case: str, tmp_path: Path, pki: Path) -> None:
    """Address, trust, certificate, token and proxy are those that kubernetes_asyncio finds in the same file."""
    from kubernetes_asyncio import config as library
    from kubernetes_asyncio.client import Configuration

    parts = [
        {
            key: encoded((pki / value[1:]).read_bytes()) if str(value).startswith("@") else value
            for key, value in part.items()
        }
        for part in CASES[case]
    ]
    path = write(tmp_path / "k", *parts)
    theirs = Configuration()
    await library.load_kube_config(config_file=str(path), client_configuration=theirs)
    ours = await load_config(path)

    header = ours.token and f"Bearer {ours.token}"
    if ours.credential is not None:
        header = ours.credential.current(0.0) or await ours.credential.renew()
    assert header == (theirs.api_key or {}).get("BearerToken")
    assert (ours.server, ours.verify) == (theirs.host, theirs.verify_ssl)
    assert (ours.tls_server_name, ours.proxy) == (theirs.tls_server_name, theirs.proxy)
    assert _content(ours.ca_data, ours.ca_file) == _content(None, theirs.ssl_ca_cert)
    assert _content(ours.client_cert_data, ours.client_cert_file) == _content(None, theirs.cert_file)
    assert _content(ours.client_key_data, ours.client_key_file) == _content(None, theirs.key_file)


def _content(data: bytes | None, file: str | None) -> bytes | None:
    return data or (Path(file).read_bytes() if file else None)


async def test_the_context_names_the_namespace(tmp_path: Path) -> None:
    """It is "default" where the context has none, and another context may be asked for."""
    path = tmp_path / "k"
    first = content({"token": "a"}, namespace="team")
    second = content({"token": "b"}, name="d")
    merged = {key: first[key] + second[key] if isinstance(first[key], list) else first[key] for key in first}
    path.write_text(yaml.safe_dump(merged))

    assert (await load_config(path)).namespace == "team"
    other = await load_config(path, "d")
    assert (other.namespace, other.token) == ("default", "b")


async def test_several_files_are_one(tmp_path: Path, pki: Path) -> None:
    """The first file that says something wins, relative paths are of the file that has them, and files that do not
    exist are passed over: kubectl's rules."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "mine").write_text("relative")
    first = content({"tokenFile": "mine"}, name="one")
    first |= {"clusters": [], "contexts": []}
    (folder / "k1").write_text(yaml.safe_dump(first))
    second = content({"token": "ignored"}, {"certificate-authority": "pki/ca.crt"}, name="one")
    second["current-context"] = "elsewhere"
    write_to = tmp_path / "k2"
    write_to.write_text(yaml.safe_dump(second))
    config = await load_config(f"{tmp_path / 'nowhere'}:{folder / 'k1'}:{write_to}")

    assert config.credential is not None
    assert config.credential.current(0.0) == "Bearer relative"
    assert config.ca_file == str(tmp_path / "pki" / "ca.crt")


async def test_acting_as_somebody_else(tmp_path: Path) -> None:
    """Impersonation is asked for in every request; ignoring it would act with more rights than meant."""
    path = write(tmp_path / "k", {"token": "t", "as": "jane", "as-groups": ["dev", "ops"], "as-uid": "7"})
    async with RawServer(answering) as server:
        config = await load_config(path)
        plain = RestConfig(server=server.url, token=config.token, impersonate=config.impersonate)
        async with Client(plain) as client:
            await client.get(CONFIGMAPS, "a", "n")
            _ = [line async for line in client.stream_lines("/log")]

    for request in server.requests:
        lines = [line for line in request.decode().split("\r\n") if line.startswith("Impersonate-")]
        assert sorted(lines) == [
            "Impersonate-Group: dev",
            "Impersonate-Group: ops",
            "Impersonate-Uid: 7",
            "Impersonate-User: jane",
        ]


# ------------------------------------------------------------------ precedence


async def test_the_order_in_which_places_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pod: Path
) -> None:
    """Argument, KUBECONFIG, the pod's account, the file in the home folder."""
    home = tmp_path / "home"
    (home / ".kube").mkdir(parents=True)
    write(home / ".kube" / "config", {"token": "home"})
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KUBECONFIG", str(write(tmp_path / "env", {"token": "env"})))
    argument = write(tmp_path / "arg", {"token": "arg"})

    assert (await load_config(argument)).token == "arg"
    assert (await load_config()).token == "env"
    monkeypatch.delenv("KUBECONFIG")
    assert (await load_config()).server == "https://10.0.0.1:443"
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    assert (await load_config()).token == "home"
    (home / ".kube" / "config").unlink()
    with pytest.raises(ConfigError, match=r"no --kubeconfig, no KUBECONFIG, not in a pod, no ~/\.kube/config"):
        await load_config()


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files and the environment of a pod."""
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("first")
    (account / "namespace").write_text("kaito-system\n")
    (account / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\nca\n")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(kubeconfig, "_SERVICE_ACCOUNT", account)
    return account


async def test_in_a_pod(pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account's token, namespace and authority are used, the files of both for as long as the client lives."""
    config = await load_config()
    assert isinstance(config.credential, TokenFile)
    assert config.credential.current(0.0) == "Bearer first"
    assert (config.namespace, config.ca_file) == ("kaito-system", str(pod / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    assert (await load_config()).server == "https://[fd00::1]:443"
    (pod / "ca.crt").write_text("")
    with pytest.raises(ConfigError, match=r"ca\.crt is empty"):
        await load_config()
    (pod / "ca.crt").unlink()
    with pytest.raises(ConfigError, match="service account cannot be used"):
        await load_config()


# ------------------------------------------------------------------ what is wrong


BROKEN = {
    "empty": "",
    "not YAML": f"a: [{SECRET}",
    "tab": f"users:\n- name: u\n  user:\n\ttoken: {SECRET}\n",
    "not a mapping": f"- {SECRET}",
    "no lists": "clusters: 1\ncurrent-context: c\n",
    "no entries": "clusters: [1]\ncurrent-context: c\n",
    "no context": "current-context: x\ncontexts: []\n",
    "no current context": yaml.safe_dump({**content({}), "current-context": ""}),
    "context of another type": yaml.safe_dump({**content({}), "current-context": 5}),
    "no cluster": yaml.safe_dump({**content({}), "clusters": []}),
    "no user": yaml.safe_dump({**content({}), "users": []}),
    "no server": yaml.safe_dump(content({}, {"server": ""})),
    "odd server": yaml.safe_dump(content({}, {"server": "127.0.0.1:6443"})),
    "server of another type": yaml.safe_dump(content({}, {"server": ["x"]})),
    "token of another type": yaml.safe_dump(content({"token": [SECRET]})),
    "token with a line end inside": yaml.safe_dump(content({"token": f"a\n{SECRET}"})),
    "no base64": yaml.safe_dump(content({"client-key-data": f"{SECRET}!"})),
    "insecure of another type": yaml.safe_dump(content({}, {"insecure-skip-tls-verify": "yes"})),
    "plug-in without command": yaml.safe_dump(content({"exec": {"apiVersion": "v1"}})),
    "plug-in of another type": yaml.safe_dump(content({"exec": SECRET})),
    "socks proxy": yaml.safe_dump(content({}, {"proxy-url": f"socks5://u:{SECRET}@proxy"})),
    "user of another type": yaml.safe_dump(content({})).replace("user: {}", f"user: {SECRET}"),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_file_is_an_error_that_names_it_and_tells_nothing(case: str, tmp_path: Path) -> None:
    """Whatever is wrong, the error is ours, says which file, and quotes no secret, nor does its cause."""
    broken = tmp_path / "broken"
    broken.write_text(BROKEN[case])
    with pytest.raises(ConfigError, match="broken") as caught:
        await load_config(broken)

    assert SECRET not in "".join(traceback.format_exception(caught.value))


async def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing one, a folder, bytes that are no text."""
    with pytest.raises(ConfigError, match="does not exist"):
        await load_config(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="cannot be used"):
        await load_config(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe" + SECRET.encode())
    with pytest.raises(ConfigError, match="is not text") as caught:
        await load_config(tmp_path / "binary")
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(ConfigError, match="no context named 'other'"):
        await load_config(write(tmp_path / "k", {}), "other")


async def test_no_secret_is_in_a_repr_or_a_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, pki: Path
) -> None:
    """Tokens, passwords and keys stay where they are used."""
    caplog.set_level(logging.DEBUG)
    key = encoded(SECRET.encode())
    users = (
        {"token": SECRET},
        {"username": "u", "password": SECRET},
        {"client-certificate-data": encoded(b"c"), "client-key-data": key},
        {"exec": {"apiVersion": "v1", "command": "c", "env": [{"name": "A", "value": SECRET}]}},
    )
    proxy = {"proxy-url": f"http://u:{SECRET}@127.0.0.1:1"}
    for user in users:
        config = await load_config(write(tmp_path / "k", user, proxy))
        client = Client(config)
        shown = f"{config!r} {config.credential!r} {client!r} {vars(client)!r}"
        assert SECRET not in shown
        assert encoded(f"u:{SECRET}".encode()) not in shown
        with pytest.raises(ManagerError) as caught:
            await client.get(CONFIGMAPS, "a", "n")
        assert SECRET not in str(caught.value)
        await client.close()

    assert SECRET not in caplog.text


# ------------------------------------------------------------------ old auth providers: the library's


async def test_an_old_auth_provider_is_asked_through_the_library(tmp_path: Path) -> None:
    """A token of the oidc provider that is still good is used."""
    claims = base64.urlsafe_b64encode(b'{"exp": 99999999999}').decode().rstrip("=")
    token = f"x.{claims}.y"
    provider = {"name": "oidc", "config": {"id-token": token}}
    config = await load_config(write(tmp_path / "k", {"auth-provider": provider}))
    assert config.credential is not None

    assert await config.credential.renew() == f"Bearer {token}"


# ------------------------------------------------------------------ proxies


@pytest.mark.parametrize(
    ("server", "environment", "expected"),
    [
        ("https://k.example.com", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("https://k.example.com", {"HTTP_PROXY": "http://p:1"}, None),
        ("https://k.example.com", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "x,.example.com"}, None),
        ("https://10.1.2.3:443", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "x,10.0.0.0/8"}, None),
        ("https://11.1.2.3:443", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "x,10.0.0.0/8"}, "http://p:1"),
        ("https://127.0.0.1:6443", {"HTTPS_PROXY": "http://p:1"}, None),
        ("https://localhost:6443", {"HTTPS_PROXY": "http://p:1"}, None),
        ("https://k.example.com", {}, None),
    ],
)
async def test_the_environment_s_proxy(
    server: str, environment: dict[str, str], expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Go's clients have it: by scheme, never for this machine, and networks may be excepted."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert (await load_config(write(tmp_path / "k", {}, {"server": server}))).proxy == expected


async def test_plain_requests_go_through_a_proxy_with_its_password() -> None:
    """The proxy is told the whole address, and who asks; streams do the same."""
    async with RawServer(answering) as proxy:
        config = RestConfig(
            server="http://kubernetes.invalid:8080/base", proxy=f"http://u:p@127.0.0.1:{proxy.port}"
        )
        async with Client(config) as client:
            await client.patch(CONFIGMAPS, "a", {}, namespace="n")
            await client.get(CONFIGMAPS, "a", "n")
            _ = [line async for line in client.stream_lines("/log")]

    heads = [request.split(b"\r\n\r\n")[0].decode().split("\r\n") for request in proxy.requests]
    where = "http://kubernetes.invalid:8080/base"
    assert [head[0] for head in heads] == [
        f"PATCH {where}/api/v1/namespaces/n/configmaps/a?fieldManager=kaito HTTP/1.1",
        f"GET {where}/api/v1/namespaces/n/configmaps/a HTTP/1.1",
        f"GET {where}/log HTTP/1.1",
    ]
    for head in heads:
        assert head.count(f"Proxy-Authorization: Basic {encoded(b'u:p')}") == 1
        assert head.count("Host: kubernetes.invalid:8080") == 1


async def test_requests_to_https_go_through_a_tunnel(tmp_path: Path) -> None:
    """The proxy is asked to connect, and sees nothing of the request."""
    authority = Authority(tmp_path / "pki")
    pair = authority.server("server", ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)

    async def tunnel(exchange: Exchange) -> None:
        request = await exchange.request()
        address, _, port = request.split()[1].decode().rpartition(":")
        reader, writer = await asyncio.open_connection(address, int(port))
        await exchange.send(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                target.write(data)
            target.close()

        await asyncio.gather(pump(reader, exchange.writer), pump(exchange.reader, writer))

    async with RawServer(answering, context) as server, RawServer(tunnel) as proxy:
        config = RestConfig(
            server=server.url,
            ca_data=authority.ca_pem,
            token=SECRET,
            proxy=f"http://u:p@127.0.0.1:{proxy.port}",
        )
        async with Client(config) as client:
            assert await client.patch(CONFIGMAPS, "a", {}, namespace="n") == {}
            assert await client.get(CONFIGMAPS, "a", "n") == {}

    (asked,) = proxy.requests
    assert asked.startswith(f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\n".encode())
    assert encoded(b"u:p").encode() in asked
    assert SECRET.encode() not in asked
    assert len(server.requests) == 2
