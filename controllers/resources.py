"""The REST resources of our own kinds."""

from __future__ import annotations

from api import keys
from manager.types import Resource

WORKSPACES = Resource(keys.KAITO_GROUP, "v1alpha1", "workspaces", "Workspace")
NODECLAIMS = Resource(keys.KARPENTER_GROUP, "v1", "nodeclaims", "NodeClaim", namespaced=False)
MACHINES = Resource(keys.KARPENTER_GROUP, "v1alpha5", "machines", "Machine", namespaced=False)
VOLUME_ATTACHMENTS = Resource("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", namespaced=False)
