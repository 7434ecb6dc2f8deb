"""The identity service and the machine's metadata endpoint, as far as a credential asks them.

In: a federated token at ``/<tenant>/oauth2/v2.0/token``, or a request for the machine's own identity at
``/metadata/identity/oauth2/token``. Out: access tokens, each one new, which the Resource Manager then knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

_LIFETIME = 3600


@dataclass
class Identity:
    """Who may have a token.

    Attributes:
        tokens: the access tokens that are good.
        refuse: words of the identity service with which every request is refused; empty grants them.
        asked: the forms and queries that came, in order.
        changed: called when there is a new token.
    """

    tokens: set[str] = field(default_factory=set)
    refuse: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)
    changed: Callable[[], None] = lambda: None

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/{tenant}/oauth2/v2.0/token", self._federated),
            web.get("/metadata/identity/oauth2/token", self._managed),
        ]

    async def _federated(self, request: web.Request) -> web.Response:
        form = {key: str(value) for key, value in (await request.post()).items()}
        self.asked.append({"tenant": request.match_info["tenant"], **form})
        if self.refuse or not form.get("client_assertion"):
            words = self.refuse or "AADSTS900144: The request body must contain 'client_assertion'."
            return web.json_response({"error": "invalid_client", "error_description": words}, status=401)
        return web.json_response({"token_type": "Bearer", "expires_in": _LIFETIME, "access_token": self._new()})

    async def _managed(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        if request.headers.get("Metadata") != "true":
            return web.json_response({"error": "invalid_request"}, status=400)
        if self.refuse:
            body = {"error": "invalid_request", "error_description": self.refuse}
            return web.json_response(body, status=400)
        body = {
            "access_token": self._new(),
            "token_type": "Bearer",
            "expires_in": str(_LIFETIME),
            "resource": request.query.get("resource", ""),
        }
        return web.json_response(body)

    def _new(self) -> str:
        token = f"access-{len(self.tokens) + 1}"
        self.tokens.add(token)
        self.changed()
        return token
