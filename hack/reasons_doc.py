"""Writes docs/reasons.md: every reason that a condition or an event of ours can bear.

In: the reasons with their sentences, and the order of urgency. Out: the page as text. Run through
``hack/generate.py``, which also checks that the page is fresh.
"""

from __future__ import annotations

from collections.abc import Iterator

from api.reasons import Reason, next_step_of, sentence_of
from controllers.workspace.findings import Turn, passes, turn_of, urgency
from provisioner import errors

_HEAD = """# Reasons

A Workspace has one cause at a time in REASON (`kubectl get workspace -o wide`, or `kaito explain NAME`): the most
urgent of all that are true. Scripts may match on these words; none is ever renamed. An event is recorded whenever
the reason of a Workspace changes: *Normal* where it only takes time, *Warning* otherwise, and always a Warning
when the Workspace was ready before.

The rows stand in the order of urgency, and what is good comes last. *turn*: who has to move.
"""


def document() -> str:
    """The page."""
    return "\n".join((_HEAD, *_reasons(), "", *_clouds(), ""))


def _reasons() -> Iterator[str]:
    yield "| reason | event | turn | what it says | what to do |"
    yield "|---|---|---|---|---|"
    for reason in sorted(Reason, key=lambda item: (item in _GOOD, urgency(str(item)), list(Reason).index(item))):
        kind = "Normal" if passes(reason) or reason in _GOOD else "Warning"
        turn = "" if reason in _GOOD else _whose(turn_of(reason))
        step = next_step_of(reason)
        yield f"| {reason} | {kind} | {turn} | {_cell(sentence_of(reason))} | {_cell(step)} |"


def _clouds() -> Iterator[str]:
    yield "## Refusals of a cloud"
    yield ""
    yield "They stand in the Machine's `MachineLaunched` and are copied, in the cloud's words, into the Workspace."
    yield ""
    yield "| reason | turn | tried again | what to do |"
    yield "|---|---|---|---|"
    for kind in sorted(_subclasses(), key=lambda item: item.reason):
        again = "no" if kind.terminal else f"{kind.policy.first:g} to {kind.policy.cap:g} s"
        yield f"| {kind.reason} | {_whose(turn_of(kind.reason))} | {again} | {_cell(kind.default_next_step)} |"


def _subclasses() -> list[type[errors.CloudError]]:
    found = vars(errors).values()
    return [item for item in found if isinstance(item, type) and issubclass(item, errors.CloudError)]


def _whose(turn: Turn) -> str:
    return str(turn)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("{", "<").replace("}", ">").replace("!r", "")


_GOOD = frozenset(
    {
        Reason.ADAPTERS_READY,
        Reason.INFERENCE_SUCCESS,
        Reason.NODE_LAUNCHED,
        Reason.NODE_PLUGINS_READY,
        Reason.READY,
        Reason.RESOURCE_SUCCESS,
        Reason.WORKLOAD_READY,
        Reason.WORKSPACE_DELETED,
        Reason.WORKSPACE_READY,
        Reason.WORKSPACE_SUCCEEDED,
    }
)
