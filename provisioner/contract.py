"""What every provider must do, whichever cloud it speaks to: the protocol's promises as checks.

In: a :class:`Subject`, a provider on a cloud that is empty and that the caller can move along. Out: nothing, or
``ContractBroken`` with the promise that was not kept. A new cloud is done when its provider passes all of
:data:`CONTRACT`; each check starts from an empty cloud. Nothing of a test framework is needed here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from provisioner.errors import CloudError, InstanceExists, NotFound
from provisioner.protocol import CloudProvider, Instance, InstanceRequest, InstanceState

_MACHINE, _UID = "ws0c0ffee01", "7b0a2f7e-2f0e-4a55-9d3c-000000000001"
_OTHER, _OTHER_UID = "ws0c0ffee02", "7b0a2f7e-2f0e-4a55-9d3c-000000000002"


class ContractBroken(AssertionError):
    """A promise of the protocol that a provider does not keep."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A provider to judge.

    Attributes:
        request: makes a good request from an instance name and the Machine's uid.
        finish: ends well whatever is under way for an instance of that name.
        creates: whether it makes instances at all.
    """

    provider: CloudProvider
    request: Callable[[str, str], InstanceRequest]
    finish: Callable[[str], Awaitable[None]]
    creates: bool = True

    @property
    def name(self) -> str:
        """The instance that the checks are about."""
        return self.provider.instance_name(_MACHINE, _UID)

    async def created(self) -> Instance:
        """Start to create it."""
        return await self.provider.create(self.request(self.name, _UID))

    async def running(self) -> Instance:
        """Have it running."""
        await self.created()
        await self.finish(self.name)
        return await self.provider.get(self.name)


def _require(kept: object, promise: str) -> None:
    if not kept:
        raise ContractBroken(promise)


async def _refused(work: Callable[[], Awaitable[object]], promise: str) -> CloudError:
    """The CloudError that ``work`` ends in; another exception is a broken promise too."""
    try:
        await work()
    except CloudError as error:
        _require(
            error.reason and error.message and error.next_step, "an error says what is the case and what to do"
        )
        return error
    except Exception as error:
        raise ContractBroken(f"{promise}; it raised {type(error).__name__}, which is no CloudError") from error
    raise ContractBroken(f"{promise}; it raised nothing")


async def names_are_stable_and_distinct(subject: Subject) -> None:
    """One Machine has always the same instance name, and another Machine another one."""
    provider = subject.provider
    name = provider.instance_name(_MACHINE, _UID)
    _require(name == provider.instance_name(_MACHINE, _UID), "the name of an instance never changes")
    _require(name != provider.instance_name(_OTHER, _OTHER_UID), "two Machines never share a name")


async def a_node_of_nobody_is_no_instance(subject: Subject) -> None:
    """A bare Node, and one of an unknown cloud, belong to no instance."""
    for node in ({}, {"spec": {"providerID": "elsewhere:///7"}}, {"metadata": {"labels": None}, "spec": None}):
        _require(subject.provider.instance_of(node) == "", "a foreign node belongs to no instance")


async def what_is_not_there_is_not_found(subject: Subject) -> None:
    """Looking up, resuming and deleting what does not exist is ``NotFound``, and the list is empty."""
    provider, name = subject.provider, subject.name
    calls = (
        partial(provider.get, name),
        partial(provider.resume, name, ""),
        partial(provider.resume, name, "x.y"),
        partial(provider.delete, name),
    )
    for work in calls:
        error = await _refused(work, "what is not there is NotFound")
        _require(isinstance(error, NotFound), f"what is not there is NotFound, not {error.reason}")
    _require(await provider.list() == [], "a list of nothing is empty")


async def a_creation_starts_and_returns(subject: Subject) -> None:
    """A creation returns at once, and is seen by ``get``, ``resume`` and ``list``; or it is refused for good."""
    provider, name = subject.provider, subject.name
    if not subject.creates:
        error = await _refused(subject.created, "a provider that makes no instances refuses to")
        _require(error.terminal, "and says that it always will")
        return
    made = await subject.created()
    _require(made.name == name, "an instance is called as it was asked for")
    _require(made.state in (InstanceState.CREATING, InstanceState.RUNNING), "a creation is under way, or over")
    for seen in (await provider.get(name), await provider.resume(name, made.operation), *await provider.list()):
        _require((seen.name, seen.state) == (name, InstanceState.CREATING), "it is seen as being created")
        _require(seen.instance_type == made.instance_type, "its type is told")
    _require(len(await provider.list()) == 1, "there is one of it")


async def a_second_creation_changes_nothing(subject: Subject) -> None:
    """Whoever asks for the same instance again is told that it exists, and there is still one."""
    if not subject.creates:
        return
    before = await subject.running()
    error = await _refused(subject.created, "a second creation is refused")
    _require(isinstance(error, InstanceExists), f"a second creation is InstanceExists, not {error.reason}")
    _require(await subject.provider.list() == [before], "and changes nothing")


async def a_token_that_is_no_use_is_no_error(subject: Subject) -> None:
    """A token of something else, or of nothing, is answered as ``get`` is."""
    if not subject.creates:
        return
    there = await subject.running()
    for token in ("", "nonsense", "1.create.other.type.spot.AAAA"):
        found = await subject.provider.resume(there.name, token)
        _require(
            (found.name, found.state) == (there.name, InstanceState.RUNNING), "the instance itself is looked up"
        )


async def a_deletion_ends_in_not_found(subject: Subject) -> None:
    """A deletion returns at once, may be repeated, and in the end nothing is there."""
    if not subject.creates:
        return
    provider, name = subject.provider, (await subject.running()).name
    token = await provider.delete(name)
    _require(
        (await provider.get(name)).state is InstanceState.DELETING, "a deletion is seen while it is under way"
    )
    await provider.delete(name)
    await subject.finish(name)
    for work in (
        partial(provider.resume, name, token),
        partial(provider.get, name),
        partial(provider.delete, name),
    ):
        error = await _refused(work, "what was deleted is NotFound")
        _require(isinstance(error, NotFound), f"what was deleted is NotFound, not {error.reason}")
    _require(await provider.list() == [], "and is not listed")


async def closing_twice_is_fine(subject: Subject) -> None:
    """A provider is closed by whoever ends first, and again by whoever ends last."""
    await subject.provider.close()
    await subject.provider.close()


CONTRACT: tuple[Callable[[Subject], Awaitable[None]], ...] = (
    names_are_stable_and_distinct,
    a_node_of_nobody_is_no_instance,
    what_is_not_there_is_not_found,
    a_creation_starts_and_returns,
    a_second_creation_changes_nothing,
    a_token_that_is_no_use_is_no_error,
    a_deletion_ends_in_not_found,
    closing_twice_is_fine,
)
