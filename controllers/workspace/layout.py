"""How a model is laid over the nodes of a Workspace: the value that sizing decides and the workload is built from.

In: nothing. Out: the dataclass. Whoever makes a StatefulSet or the server's flags reads it off ``Target.layout``
and computes nothing of the kind again, so that the pods ask for what the nodes were chosen for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    """A model over nodes and GPUs.

    Attributes:
        nodes: pods, one for each node.
        gpus_per_node: GPUs that each pod asks for; 0 for a template, whose author asks for them himself.
        tensor_parallel: GPUs that share each layer; always within one node.
        pipeline_parallel: groups that each hold a run of layers, over all nodes.
        max_model_len: tokens of the longest request that fits; None leaves it to the engine.
        distributed: one copy of the model spans the nodes, so that each needs all the others. Several nodes
            without it are replicas of each other.
        reason: how the figures were found, in a sentence without its full stop.
    """

    nodes: int
    gpus_per_node: int
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    max_model_len: int | None = None
    distributed: bool = False
    reason: str = ""
