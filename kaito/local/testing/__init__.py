"""For tests and benchmarks: a cluster of which only the hardware is played.

In: an API server of another process, or none: then one runs in this event loop, with the controllers of
Kubernetes, so that a loop in virtual time makes hours cost nothing. Out: a cluster with our CRDs, an empty cloud,
nodes that join, pods that become ready, and operators to start and to kill. ``stub`` and what goes with it are
processes for pods that cost next to nothing.
"""

from kaito.local.testing.hardware import Hardware as Hardware
from kaito.local.testing.operators import Operators as Operators
from kaito.local.testing.paper import Paper as Paper
from kaito.local.testing.paper import paper_cluster as paper_cluster

__all__ = ["Hardware", "Operators", "Paper", "paper_cluster"]
