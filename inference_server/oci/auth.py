"""How a registry wants to be spoken to: its challenge, answered with one credential after the other.

In: a 401 with its WWW-Authenticate header, and the credentials at hand. Out: values for the Authorization header,
best first, the anonymous token last. Tokens live in memory only, for one repository, until the registry refuses
them. No credential goes to a realm without TLS, unless the registry itself is spoken to without.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Sequence

import aiohttp
import orjson
from yarl import URL

from inference_server.oci.credentials import Credential
from inference_server.oci.errors import Unreachable
from inference_server.oci.reference import Reference

logger = logging.getLogger("kaito.inference_server.oci.auth")

_PARAMETER = re.compile(r'([a-z_]+)="([^"]*)"', re.IGNORECASE)
_TOKEN_BYTES = 1 << 20


async def answers(
    session: aiohttp.ClientSession,
    challenge: str,
    reference: Reference,
    credentials: Sequence[Credential],
    *,
    plain: bool,
) -> AsyncIterator[str]:
    """Authorization values to try in turn. Ends when there is nothing left to try. Raises Unreachable."""
    scheme, _, rest = challenge.partition(" ")
    if scheme.lower() == "basic":
        for credential in credentials:
            yield credential.basic()
        return
    if scheme.lower() != "bearer":
        logger.warning("registry asks for an unknown scheme host=%s scheme=%s", reference.host, scheme[:20])
        return
    parameters = {name.lower(): value for name, value in _PARAMETER.findall(rest)}
    realm = parameters.get("realm", "")
    if not realm.startswith("https://") and not (plain and realm.startswith("http://")):
        logger.warning("registry names a token service without TLS host=%s", reference.host)
        return
    query = {"scope": parameters.get("scope") or f"repository:{reference.repository}:pull"}
    if parameters.get("service"):
        query["service"] = parameters["service"]
    for candidate in [*credentials, None]:
        token = await _token(session, URL(realm), query, candidate)
        if token:
            yield f"Bearer {token}"


async def _token(
    session: aiohttp.ClientSession, realm: URL, query: dict[str, str], credential: Credential | None
) -> str | None:
    """A token, or None where the service refuses the credential."""
    try:
        if credential is not None and credential.identity_token:
            form = query | {
                "grant_type": "refresh_token",
                "refresh_token": credential.identity_token,
                "client_id": "kaito",
            }
            request = session.post(realm, data=form)
        else:
            headers = {"Authorization": credential.basic()} if credential else {}
            request = session.get(realm.update_query(query), headers=headers)
        async with request as reply:
            if reply.status in (400, 401, 403, 404):
                return None
            if reply.status != 200:
                raise Unreachable(f"the token service {realm.host} answers {reply.status}")
            body = await reply.content.read(_TOKEN_BYTES)
    except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError) as error:
        raise Unreachable(f"the token service {realm.host} cannot be reached: {error}") from error
    return _of_body(body)


def _of_body(body: bytes) -> str | None:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    token = (fields.get("token") or fields.get("access_token")) if isinstance(fields, dict) else None
    return token if isinstance(token, str) and token.isascii() and token.isprintable() else None
