"""Tools for testing operators against API servers: the counterpart of the ecosystem's envtest.

``ControlPlane`` is a real etcd and kube-apiserver on loopback, from the folder that ``KUBEBUILDER_ASSETS`` names.
``running`` and ``eventually`` put a manager into a test. ``scripted`` is a server that answers what the test says,
for faults that no real one shows on request.

Names are loaded when they are used: a control plane needs cryptography and YAML, which a test of a reconciler with
a scripted server does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from manager import lazy

if TYPE_CHECKING:
    from manager.testing.controlplane import AssetsMissing, ControlPlane, assets, free_port
    from manager.testing.harness import eventually, running
    from manager.testing.scripted import Script

__all__ = ["AssetsMissing", "ControlPlane", "Script", "assets", "eventually", "free_port", "running"]

__getattr__, __dir__ = lazy.names(
    __name__,
    {
        "controlplane": ("AssetsMissing", "ControlPlane", "assets", "free_port"),
        "harness": ("eventually", "running"),
        "scripted": ("Script",),
    },
)
