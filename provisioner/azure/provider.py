"""Machines as AKS agent pools; implements :class:`provisioner.protocol.CloudProvider`.

In: calls of the Machine controller. Out: at most a few requests to Azure's Resource Manager, and typed answers.
ARM owns the pools. What is remembered here only spares requests: who waits for a turn, which sizes were out of
stock, which names were seen to be ours. Losing it costs a request and never a pool. Nothing that is not ours is
ever changed or deleted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from provisioner.azure.admission import Admission, Wait
from provisioner.azure.body import offerings, pool_body
from provisioner.azure.classify import NEXT_STEPS
from provisioner.azure.names import check_pool_name, instance_name, pool_of_node
from provisioner.azure.operation import CREATE, Operation
from provisioner.azure.pools import Pool, check_ours, to_instance
from provisioner.azure.settings import AzureSettings
from provisioner.azure.shortage import Shortages
from provisioner.errors import (
    AuthorizationFailed,
    CloudError,
    CloudUnavailable,
    InvalidRequest,
    Misconfigured,
    NotFound,
    OperationInProgress,
    Throttled,
)
from provisioner.protocol import Instance, InstanceRequest, InstanceState

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

    from provisioner.azure.arm import Arm, Progress

log = logging.getLogger("kaito.provisioner.azure")


class AzureProvider:
    """One AKS cluster."""

    name = "azure"

    def __init__(
        self,
        settings: AzureSettings,
        *,
        credential: Callable[[], AsyncTokenCredential] | None = None,
        user_agent: str = "kaito",
    ) -> None:
        """Cheap: the SDK is imported and connected by the first call, in that call's event loop.

        Args:
            credential: makes another credential than the one of the settings.
        """
        self.poll_interval = float(settings.poll_interval)
        self._settings = settings
        self._make_credential = credential
        self._user_agent = user_agent
        self._arm: Arm | None = None
        self._admission = Admission(ceiling=settings.max_operations)
        self._shortages = Shortages()
        self._ours: set[str] = set()  # pools that were seen to be ours; a name of ours cannot become another's
        self._unclear: set[str] = set()  # pools whose PUT may have arrived although no answer to it did

    def __repr__(self) -> str:
        return f"<AzureProvider {self._settings.cluster} {self._admission!r} {self._shortages!r}>"

    # ------------------------------------------------------------------ names

    def instance_name(self, machine: str, uid: str, provider_id: str = "") -> str:
        """The agent pool of one Machine. Raises ``InvalidRequest`` for another cloud's providerID."""
        return instance_name(uid, provider_id)

    def instance_of(self, node: Mapping[str, Any]) -> str:
        return pool_of_node(node)

    # ------------------------------------------------------------------ one instance

    async def create(self, request: InstanceRequest) -> Instance:
        """Start to create the pool with the first offering that Azure has.

        Raises:
            OperationInProgress: the cluster is busy; the Machine has a place in the queue and keeps it by asking
                again when told.
        """
        name = check_pool_name(request.name)
        progress = await self._in_turn(name, lambda: self._put(request), urgent=False)
        self._ours.add(name)
        if progress.pool is not None:
            return self._instance(progress.pool)
        return _under_way(progress.operation, progress.look_again)

    async def get(self, name: str) -> Instance:
        if self._is_absent(name):
            raise NotFound(f"agent pool {name} waits for its turn to be created")
        try:
            pool = await self._connected().get(name)
        except NotFound:
            if not self._admission.waits(name):
                self._admission.ended(name)
            raise
        self._unclear.discard(name)
        return self._instance(self._checked(pool))

    async def resume(self, name: str, operation: str) -> Instance:
        known = Operation.decode(operation, name)
        if known is None:
            log.warning("operation token is of no use pool=%s", name)
            return await self.get(name)
        try:
            progress = await self._connected().poll(known)
        except (AuthorizationFailed, Throttled):
            raise
        except CloudError as error:
            # An old or tampered token, or an operation that ARM has forgotten: the pool knows how it stands.
            log.info("operation cannot be looked at pool=%s: %s", name, error)
            return await self.get(name)
        if not progress.done:
            self._admission.seen(name, self._now())
            return _under_way(known, progress.look_again)
        self._admission.ended(name)
        if progress.error is not None:
            return self._failed(known, progress.error)
        if known.verb != CREATE:
            raise NotFound(f"agent pool {name} has been deleted")
        if progress.pool is None or progress.pool.name != name:
            return await self.get(name)
        return self._instance(self._checked(progress.pool))

    async def delete(self, name: str) -> str:
        if self._is_absent(name):
            self._admission.ended(name)
            raise NotFound(f"agent pool {name} was never created")
        if name not in self._ours and (await self.get(name)).state is InstanceState.DELETING:
            return ""
        try:
            progress = await self._in_turn(name, lambda: self._connected().delete(name), urgent=True)
        except NotFound:
            self._ours.discard(name)
            self._unclear.discard(name)
            raise
        if progress.done:
            self._admission.ended(name)
        return progress.operation.encode()

    # ------------------------------------------------------------------ all instances

    async def list(self) -> list[Instance]:
        return [self._instance(pool) for pool in await self._connected().list() if pool.is_ours]

    async def close(self) -> None:
        if self._arm is not None:
            arm, self._arm = self._arm, None
            await arm.close()

    # ------------------------------------------------------------------ how

    async def _in_turn(self, name: str, start: Callable[[], Any], *, urgent: bool) -> Progress:
        """Start an operation when the cluster has room for it, and learn from what AKS says."""
        wait = self._admission.ask(name, self._now(), urgent=urgent)
        if wait is not None:
            raise _not_yet(wait)
        try:
            progress: Progress = await start()
        except OperationInProgress as error:
            wait = self._admission.refused(name, self._now())
            seconds = wait.seconds if error.retry_after is None else max(wait.seconds, error.retry_after)
            raise OperationInProgress(error.message, code=error.code, retry_after=seconds) from error
        except Throttled as error:
            self._admission.postponed(name, self._now() + error.retry_delay(1))
            raise
        except BaseException as error:
            self._admission.ended(name)
            if not isinstance(error, CloudError) or isinstance(error, CloudUnavailable):
                self._unclear.add(name)
            raise
        self._admission.accepted(name, self._now())
        return progress

    def _is_absent(self, name: str) -> bool:
        """Whether the pool cannot exist: it waits to be created, and nothing was ever sent that could have."""
        return self._admission.waits(name) and name not in self._unclear

    async def _put(self, request: InstanceRequest) -> Progress:
        refused: list[CloudError] = []
        for offering in self._shortages.in_order(offerings(request), self._now()):
            body = pool_body(request, offering, cluster=self._settings.cluster, subnet_id=self._settings.subnet_id)
            try:
                return await self._connected().put(request.name, offering, body)
            except NotFound as error:
                # What is missing when a pool is to be made can only be what it is to be made in.
                raise Misconfigured(error.message, code=error.code, next_step=NEXT_STEPS[Misconfigured]) from error
            except CloudError as error:
                if not self._shortages.note(offering, error, self._now()):
                    raise
                log.warning("offering refused pool=%s offering=%s reason=%s", request.name, offering, error.reason)
                refused.append(error)
        if not refused:
            raise InvalidRequest("no instance type is asked for")
        # One that may change by itself keeps the Machine trying; otherwise the first is the author's own choice.
        raise next((error for error in refused if not error.terminal), refused[0])

    def _failed(self, operation: Operation, error: CloudError) -> Instance:
        self._shortages.note(operation.offering, error, self._now())
        return Instance(operation.pool, operation.offering.instance_type, InstanceState.FAILED, error=error)

    def _instance(self, pool: Pool) -> Instance:
        instance = to_instance(pool)
        if instance.error is not None:
            self._shortages.note(pool.offering, instance.error, self._now())
        if instance.state in (InstanceState.CREATING, InstanceState.DELETING):
            self._admission.seen(instance.name, self._now())
        else:
            self._admission.ended(instance.name)
        return instance

    def _checked(self, pool: Pool) -> Pool:
        self._ours.add(check_ours(pool).name)
        return pool

    def _connected(self) -> Arm:
        if self._arm is None:
            from provisioner.azure.arm import Arm
            from provisioner.azure.credentials import make_credential

            try:
                made = self._make_credential() if self._make_credential else make_credential(self._settings)
            except ValueError as error:
                raise AuthorizationFailed(f"the credential cannot be made: {error}") from error
            self._arm = Arm(self._settings, made, user_agent=self._user_agent)
        return self._arm

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _under_way(operation: Operation, look_again: float | None) -> Instance:
    state = InstanceState.CREATING if operation.verb == CREATE else InstanceState.DELETING
    return Instance(
        operation.pool,
        operation.offering.instance_type,
        state,
        operation=operation.encode(),
        look_again=look_again,
    )


def _not_yet(wait: Wait) -> OperationInProgress:
    if wait.under_way:
        what = f"AKS works on {wait.under_way} other agent pool{'s' if wait.under_way > 1 else ''} of this cluster"
    else:
        what = "another operation on this cluster is in progress"
    before = f", {wait.ahead} more wait before this one" if wait.ahead else ""
    return OperationInProgress(what + before, retry_after=wait.seconds)
