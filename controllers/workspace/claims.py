"""Which Workspace has chosen which nodes, as of this process's last decisions.

In: the nodes that each decision chose, noted before anything is waited for. Out: the claims on a node: what was
decided here, else what the Workspaces' statuses say. The statuses are the truth that survives a restart; what
is kept here is only newer than the cache, so that two Workspaces that are reconciled at the same moment never
both take the last node. Reading and noting must happen without an await between them.
"""

from __future__ import annotations

from collections.abc import Iterable

from controllers.workspace.model import Claim


class Claims:
    """See the module."""

    def __init__(self) -> None:
        self._decided: dict[str, tuple[Claim, frozenset[str]]] = {}
        self._on: dict[str, dict[str, Claim]] = {}  # the same by node, then by Workspace

    def __repr__(self) -> str:
        return f"Claims(workspaces={len(self._decided)})"

    def note(self, claim: Claim, nodes: Iterable[str]) -> None:
        """This Workspace uses these nodes and no others."""
        self.forget(claim.workspace)
        self._decided[claim.workspace] = (claim, frozenset(nodes))
        for node in self._decided[claim.workspace][1]:
            self._on.setdefault(node, {})[claim.workspace] = claim

    def forget(self, workspace: str) -> None:
        """The Workspace is gone."""
        _claim, nodes = self._decided.pop(workspace, (None, frozenset()))
        for node in nodes:
            self._on[node].pop(workspace)
            if not self._on[node]:
                del self._on[node]

    def on(self, node: str, stored: Iterable[Claim]) -> tuple[Claim, ...]:
        """The claims on a node. ``stored`` are those of the statuses."""
        kept = [claim for claim in stored if claim.workspace not in self._decided]
        decided = self._on.get(node, {}).values()
        return tuple(sorted((*kept, *decided), key=lambda claim: claim.workspace))
