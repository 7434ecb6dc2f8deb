"""``kaito plan``: what a manifest would become, what it costs, and what will not work, without a cluster.

In: Workspaces as read from manifests, the catalogues, prices and the day. Out: a ``Verdict`` for each. Pure: the
command reads files and clocks and prints. What would be created is not computed here: the operator's own
``decide`` is run against an imaginary cluster in which everything that is asked for appears, so that plan and
operator cannot disagree. What the operator does not judge (memory, engine, retirement, price) is judged by the
functions of ``api.sizing``.
"""

from __future__ import annotations

from kaito.plan.judge import Around, Quota, judge
from kaito.plan.verdict import Finding, Severity, Verdict, exit_code

__all__ = ["Around", "Finding", "Quota", "Severity", "Verdict", "exit_code", "judge"]
