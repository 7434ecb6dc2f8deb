"""Keeps a Secret of certificates, the trust of the API server in it, and the certificate served, in step for ever.

In: a client, the Secret's name, the names to be certified, the objects to inject the authorities into. Out: a
:class:`ServingCertificate` that is loaded straight from the Secret, so that no mount has to follow. The state is
in the Secret (``rotation`` says what must become of it); every replica runs this, none is special.

Why replicas do not fight: a turn reads the targets first and the Secret after them, and each write is bound to the
resource version that was read. Whoever acts on an old Secret has therefore read the targets before the newer
Secret was published in them, and its write conflicts. Of several first Secrets one is created, the others are
given up.
What must never happen: a key in a log, an error or an event.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from manager.backoff import ExponentialBackoff
from manager.certs.injection import Target, bundles, injection, trusts
from manager.certs.rotation import Material, Policy, RealMint, advance, read_secret, write_secret
from manager.certs.serving import CertificateError, ServingCertificate
from manager.client import Client, PatchType
from manager.errors import AlreadyExists, Conflict, ManagerError, NotFound
from manager.reflector import Reflector
from manager.resources import SECRETS
from manager.types import Obj, Resource
from manager.watch import WatchEvent

log = logging.getLogger("kaito.manager.certs")

CHECK_SECONDS = 12 * 3600.0
_TURNS = 10  # writes that one reconcile may need; each step of a roll-over is one


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Rotator:
    """See the module. Run :meth:`run` as a task, in every replica.

    Args:
        client: an uncached client that may get, list, watch, create and patch the Secret, and get, list, watch and
            patch the targets.
        dns_names: that API servers call the webhook by, such as ``service.namespace.svc``; addresses work too.
        targets: see ``manager.certs.injection``; one that is not there yet gets its bundle when it is.
        serving: who is given the certificate; made when None.
        clock: the time of day, in UTC; certificates live by it.
        check: seconds after which everything is looked at even if nothing has happened.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        secret: str,
        dns_names: Sequence[str],
        targets: Sequence[Target] = (),
        serving: ServingCertificate | None = None,
        policy: Policy | None = None,
        clock: Callable[[], dt.datetime] = _utc_now,
        check: float = CHECK_SECONDS,
        rng: random.Random | None = None,
    ) -> None:
        if not dns_names:
            raise ValueError("a certificate needs at least one name")
        self.serving = serving or ServingCertificate()
        self._client = client
        self._namespace, self._name = namespace, secret
        self._names = tuple(dns_names)
        self._targets = tuple(targets)
        self._policy = policy or Policy()
        self._mint = RealMint(f"{secret} authority", self._names)
        self._clock = clock
        self._check = check
        self._rng = rng or random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._known: Material | None = None
        self._version = 0
        self._problem: str | None = "certificates have not been checked yet"
        self._ready = asyncio.Event()
        self._wake = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Rotator {self._namespace}/{self._name} {self._problem or 'in step'}>"

    def check(self) -> str | None:
        """For a readiness probe: None once there is a certificate to serve and the targets trust it."""
        return None if self._ready.is_set() else self._problem

    async def ready(self) -> None:
        """Wait until there is a certificate to serve and the targets trust it."""
        await self._ready.wait()

    async def run(self) -> None:
        """Keep everything in step until cancelled."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors():
                group.create_task(reflector.run(), name=f"certs-{self._name}-watch")
            group.create_task(self._loop(), name=f"certs-{self._name}")

    async def _loop(self) -> None:
        backoff = self._backoff()
        while True:
            self._wake.clear()
            try:
                moment = await self.reconcile()
                self._problem = None
                self._ready.set()
                delay = min(self._check, max((moment - self._clock()).total_seconds(), 0.0) + 0.001)
                backoff = self._backoff()
            except (Conflict, AlreadyExists):
                delay = backoff.next()  # another replica, or the user, was first: look again
            except ManagerError as error:
                delay = backoff.next()
                self._problem = f"certificates are not in step: {error}"
                log.warning("certificates not in step secret=%s retry_in=%.1f error=%s", self._name, delay, error)
                await asyncio.sleep(min(delay, 1.0))  # an event must not turn a failing server into a tight loop
            try:
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            except TimeoutError:
                pass  # time itself is a reason to look

    def _backoff(self) -> ExponentialBackoff:
        return ExponentialBackoff(asyncio.get_running_loop().time, first=0.01, cap=60.0, rng=self._rng)

    # ------------------------------------------------------------------ one turn

    async def reconcile(self) -> dt.datetime:
        """Take all steps that can be taken now; the moment at which the next one is due.

        Raises:
            Conflict: somebody else wrote meanwhile; so did ``AlreadyExists``. Nothing is lost, look again.
            ManagerError: the API server could not be asked or refused.
        """
        for _ in range(_TURNS):
            targets = [(target, await self._get(target)) for target in self._targets]
            present = [(target, obj) for target, obj in targets if obj is not None]
            secret = await self._secret()
            found = self._found(secret)
            if found is not None and secret is not None:
                self._adopt(secret, fresh=True)
            first = found.bundle[0].pem if found and found.bundle else None
            published = first is not None and all(trusts(obj, first) for _, obj in present)
            step = advance(
                found,
                self._clock(),
                names=self._names,
                policy=self._policy,
                mint=self._mint,
                published=published,
            )
            if secret is None or step.material != found:
                await self._write(secret, step.material)
                for reason in step.reasons:
                    log.info("certificates: %s secret=%s/%s", reason, self._namespace, self._name)
            injected = [await self._inject(target, obj, step.material.bundle_pem) for target, obj in present]
            if secret is not None and step.material == found and not any(injected):
                return step.wake
        return self._clock() + dt.timedelta(seconds=1)

    async def _get(self, target: Target) -> Obj | None:
        try:
            return await self._client.get(target.resource, target.name)
        except NotFound:
            return None

    async def _secret(self) -> Obj | None:
        try:
            return await self._client.get(SECRETS, self._name, self._namespace)
        except NotFound:
            return None

    def _found(self, secret: Obj | None) -> Material | None:
        """What there is. A Secret that somebody deleted is a wish for a new authority: what is served and trusted
        is remembered, so that even this is a roll-over with an overlap."""
        if secret is not None:
            return read_secret(secret)
        return replace(self._known, ca_key=b"", published=None) if self._known is not None else None

    async def _write(self, secret: Obj | None, material: Material) -> None:
        body = write_secret(material)
        if secret is None:
            meta = {"name": self._name, "namespace": self._namespace}
            annotations = {key: value for key, value in body["metadata"]["annotations"].items() if value}
            new = {"type": "kubernetes.io/tls", "metadata": {**meta, "annotations": annotations}}
            written = await self._client.create(SECRETS, {**body, **new})
        else:
            body["metadata"]["resourceVersion"] = secret["metadata"]["resourceVersion"]
            written = await self._client.patch(
                SECRETS, self._name, body, namespace=self._namespace, type=PatchType.MERGE
            )
        self._adopt(written, fresh=True)

    async def _inject(self, target: Target, obj: Obj, bundle: bytes) -> bool:
        patch = injection(obj, bundle)
        if not patch:
            return False
        await self._client.patch(target.resource, target.name, patch, type=PatchType.JSON)
        log.info("authorities injected target=%s places=%d", target, len(bundles(obj)))
        return True

    def _adopt(self, secret: Obj, *, fresh: bool = False) -> None:
        """Serve what the Secret holds, unless a watch tells of something older than what is known already.

        What was asked for just now (``fresh``) counts in any case: a restored server has gone back.
        """
        version = str((secret.get("metadata") or {}).get("resourceVersion", ""))
        number = int(version) if version.isdigit() else self._version
        if number < self._version and not fresh:
            return
        self._version = number
        material = read_secret(secret)
        if material.serving.cert and material.serving.key:
            try:
                if self.serving.load(material.serving.cert, material.serving.key):
                    log.info("certificate loaded secret=%s/%s", self._namespace, self._name)
            except CertificateError as error:
                log.warning("certificate of the Secret not usable secret=%s error=%s", self._name, error)
                return
            self._known = material

    # ------------------------------------------------------------------ what wakes it

    def _reflectors(self) -> list[Reflector]:
        watched: list[tuple[Resource, str | None, str, Callable[[Obj], None]]] = [
            (SECRETS, self._namespace, self._name, self._adopt)
        ]
        watched += [(target.resource, None, target.name, _ignore) for target in self._targets]
        return [
            Reflector(
                self._client,
                resource,
                _Alarm(self._wake, told),
                namespace=namespace,
                field_selector=f"metadata.name={name}",
                rng=self._rng,
            )
            for resource, namespace, name, told in watched
        ]


class _Alarm:
    """A reflector's sink that keeps nothing: it hands on the object and wakes the loop."""

    def __init__(self, wake: asyncio.Event, told: Callable[[Obj], None]) -> None:
        self._wake = wake
        self._told = told

    def replace(self, items: list[Obj], version: str) -> None:
        """See ``Sink``."""
        for item in items:
            self._told(item)
        self._wake.set()

    def apply(self, events: list[WatchEvent]) -> None:
        """See ``Sink``."""
        for event in events:
            if event.type != "DELETED":
                self._told(event.object)
        self._wake.set()

    def bookmark(self, version: str) -> None:
        """See ``Sink``."""

    def resync(self) -> None:
        """See ``Sink``."""


def _ignore(obj: Obj) -> None:
    """A target's content is read afresh in each turn."""
