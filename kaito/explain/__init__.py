"""``kaito explain``: one causal timeline of a Workspace or a Machine, and what keeps it from being ready.

In: what the API server says, read once. Out: a :class:`Chain`: moments from the manifest to the engine, the one
cause that blocks, whose turn it is and what to type. There is no second opinion: the observation is made as the
operator makes its own and handed to the operator's own ``decide``; only commands and the order in time are added
here. ``collect`` reads, ``chain`` and ``machine`` are pure, ``render`` prints.
"""

from __future__ import annotations

from kaito.explain.chain import Chain, Verdict, explain_workspace
from kaito.explain.machine import explain_machine
from kaito.explain.moments import Moment

__all__ = ["Chain", "Moment", "Verdict", "explain_machine", "explain_workspace"]
