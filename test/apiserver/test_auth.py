from __future__ import annotations

import datetime as dt
import ssl
import stat
from pathlib import Path

import aiohttp
import pytest

from kaito.local.apiserver.auth import Identity, ServiceAccountTokens, load_tokens
from kaito.local.apiserver.errors import ApiServerError
from kaito.local.apiserver.server import ApiServer, StartError
from kaito.local.pki import Authority, PkiError
from manager.client import Client
from manager.config import RestConfig
from manager.errors import Unauthorized
from manager.resources import NAMESPACES, SERVICEACCOUNTS

WHOAMI = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
REVIEW = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


async def whoami(client: Client) -> dict[str, object]:
    user: dict[str, object] = (await client.request("POST", WHOAMI, body=REVIEW))["status"]["userInfo"]
    return user


async def test_nobody_gets_health_and_version_only(server: ApiServer) -> None:
    """Without credentials health and version answer; everything else, and a wrong token, is 401."""
    async with aiohttp.ClientSession() as session:
        statuses = {}
        for path in (
            "/healthz",
            "/livez",
            "/readyz",
            "/version",
            "/api",
            "/api/v1/pods",
            "/openapi/v3",
            "/metrics",
        ):
            async with session.get(server.url + path, ssl=False) as response:
                statuses[path] = response.status
        headers = {"Authorization": "Bearer wrong"}
        async with session.get(server.url + "/api/v1/pods", ssl=False, headers=headers) as response:
            body = await response.json()

    assert [path for path, status in statuses.items() if status == 200] == [
        "/healthz",
        "/livez",
        "/readyz",
        "/version",
    ]
    assert {status for status in statuses.values() if status != 200} == {401}
    assert (body["kind"], body["reason"], body["code"]) == ("Status", "Unauthorized", 401)


async def test_the_administrators_token(client: Client) -> None:
    """The token of the kubeconfig is the administrator's."""
    assert await whoami(client) == {
        "username": "admin",
        "uid": "admin",
        "groups": ["system:masters", "system:authenticated"],
    }


async def test_tokens_of_a_file(tmp_path: Path) -> None:
    """Each line of a token file is an identity."""
    tokens = tmp_path / "tokens.csv"
    tokens.write_text('# people\nt1,ann,1,"dev,ops"\nt2,bob,2\n')
    async with ApiServer(tmp_path / "data", token_file=tokens) as server:
        seen = []
        for token in ("t1", "t2"):
            config = RestConfig(server=server.url, ca_data=server.ca_pem, token=token)
            async with Client(config) as client:
                seen.append(await whoami(client))

    assert [(user["username"], user["groups"]) for user in seen] == [
        ("ann", ["dev", "ops", "system:authenticated"]),
        ("bob", ["system:authenticated"]),
    ]


async def test_a_client_certificate_names_its_owner(server: ApiServer) -> None:
    """A certificate of the cluster's authority is an identity: common name and organizations."""
    pair = Authority(server.data_dir / "pki").client("joe", "joe", ["dev"])
    config = RestConfig(
        server=server.url,
        ca_data=server.ca_pem,
        client_cert_file=str(pair.certificate),
        client_key_file=str(pair.key),
    )
    async with Client(config) as client:
        user = await whoami(client)

    assert user == {"username": "joe", "groups": ["dev", "system:authenticated"]}


async def test_a_certificate_of_another_authority_is_refused(server: ApiServer, tmp_path: Path) -> None:
    """A stranger's certificate does not get past the handshake."""
    pair = Authority(tmp_path / "other").client("joe", "joe", ["system:masters"])
    context = ssl.create_default_context(cadata=server.ca_pem.decode())
    context.load_cert_chain(pair.certificate, pair.key)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            async with session.get(server.url + "/api", ssl=context) as response:
                await response.read()


async def test_a_service_account_token_lives_as_long_as_its_account(server: ApiServer, client: Client) -> None:
    """A requested token authenticates as the account until the account is deleted or replaced."""
    account = {"metadata": {"name": "robot"}}
    await client.create(SERVICEACCOUNTS, account, namespace="default")
    path = SERVICEACCOUNTS.path("default", "robot", "token")
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 600},
    }
    token = (await client.request("POST", path, body=request))["status"]["token"]
    config = RestConfig(server=server.url, ca_data=server.ca_pem, token=token)
    async with Client(config) as robot:
        user = await whoami(robot)
        await client.delete(SERVICEACCOUNTS, "robot", "default")
        await client.create(SERVICEACCOUNTS, account, namespace="default")
        with pytest.raises(Unauthorized):
            await whoami(robot)

    assert user["username"] == "system:serviceaccount:default:robot"
    assert "system:serviceaccounts:default" in user["groups"]  # type: ignore[operator]


def test_service_account_tokens_expire_and_cannot_be_made_elsewhere(tmp_path: Path) -> None:
    """A token is good between its times and only with our signature."""
    moment = [NOW]
    ours = ServiceAccountTokens(tmp_path / "a.key", lambda: moment[0])
    theirs = ServiceAccountTokens(tmp_path / "b.key", lambda: moment[0])
    token, expires = ours.issue("ns", "sa", "u", audiences=[], seconds=600, bound=None)

    assert expires == NOW + dt.timedelta(seconds=600)
    assert ours.check(token)["sub"] == "system:serviceaccount:ns:sa"  # type: ignore[index]
    assert theirs.check(token) is None
    header, _, rest = token.partition(".")
    assert ours.check(f"{header}x.{rest}") is None
    assert ours.check("a.b.c") is None
    moment[0] = expires
    assert ours.check(token) is None


async def test_access_reviews_say_yes_to_those_who_may(client: Client) -> None:
    """Whoever is authenticated may; the anonymous user may not."""
    path = "/apis/authorization.k8s.io/v1"
    attributes = {"resourceAttributes": {"verb": "get", "resource": "pods"}}
    api = {"apiVersion": "authorization.k8s.io/v1"}
    mine = await client.request(
        "POST",
        f"{path}/selfsubjectaccessreviews",
        body=api | {"kind": "SelfSubjectAccessReview", "spec": attributes},
    )
    nobodys = await client.request(
        "POST",
        f"{path}/subjectaccessreviews",
        body=api | {"kind": "SubjectAccessReview", "spec": attributes | {"user": "system:anonymous"}},
    )

    assert mine["status"]["allowed"] is True
    assert nobodys["status"]["allowed"] is False


async def test_secrets_of_the_server_are_its_owners_alone(server: ApiServer) -> None:
    """No file with a key, a token or the data is readable by others."""
    server.kubeconfig()
    private = [path for path in server.data_dir.rglob("*") if path.is_file() and path.name not in ("port", "lock")]

    assert {path.name for path in private} >= {"ca.key", "sa.key", "tokens.csv", "kubeconfig", "state.db"}
    assert [path for path in private if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


async def test_credentials_survive_a_restart(tmp_path: Path) -> None:
    """Port, authority and token of a second start are those of the first: old kubeconfigs stay good."""
    async with ApiServer(tmp_path) as first:
        config = first.rest_config()
    async with ApiServer(tmp_path) as second, Client(config) as client:
        assert second.rest_config() == config
        assert len((await client.list(NAMESPACES)).items) == 4


def test_a_broken_token_file_is_named(tmp_path: Path) -> None:
    """A malformed line is an error with its number."""
    path = tmp_path / "tokens.csv"
    path.write_text("good,a,1\nbad\n")

    with pytest.raises(ApiServerError, match="line 2"):
        load_tokens(path)


def test_tokens_can_be_quoted(tmp_path: Path) -> None:
    """Groups are one quoted column."""
    path = tmp_path / "tokens.csv"
    path.write_text('t, user, id, "a, b"\n')

    assert list(load_tokens(path).values()) == [Identity("user", "id", ("a", "b", "system:authenticated"))]


def test_the_authority_renews_what_runs_out(tmp_path: Path) -> None:
    """A server certificate is kept while it is good, and made anew when it lacks a name or is about to end."""
    first = Authority(tmp_path, now=NOW).server("web", ["localhost"])
    kept = first.certificate.read_bytes()
    Authority(tmp_path, now=NOW).server("web", ["localhost"])
    assert first.certificate.read_bytes() == kept
    Authority(tmp_path, now=NOW).server("web", ["localhost", "127.0.0.1"])
    wider = first.certificate.read_bytes()
    assert wider != kept
    Authority(tmp_path, now=NOW + dt.timedelta(days=340)).server("web", ["localhost"])
    assert first.certificate.read_bytes() != wider


async def test_a_damaged_authority_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    """A key that does not fit its certificate stops the start and says what to remove."""
    Authority(tmp_path / "pki")
    (tmp_path / "pki" / "ca.key").write_text("nonsense")

    with pytest.raises(PkiError, match="remove that folder"):
        Authority(tmp_path / "pki")
    with pytest.raises(StartError, match="remove that folder"):
        async with ApiServer(tmp_path):
            pass
