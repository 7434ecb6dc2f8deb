"""Every label, annotation, finalizer and well-known name that we write or read, in one list.

These strings are the wire contract with users, with the node provisioner and with clusters that ran another
release before; a literal of this kind anywhere else in the project is a mistake. Grouped by owner.
"""

from __future__ import annotations

from typing import Final

# ------------------------------------------------------------------ API groups and kinds
KAITO_GROUP: Final = "kaito.sh"
KARPENTER_GROUP: Final = "karpenter.sh"

# ------------------------------------------------------------------ finalizers
WORKSPACE_FINALIZER: Final = "workspace.finalizer.kaito.sh"
TERMINATION_FINALIZER: Final = "karpenter.sh/termination"  # on Machine and on its Node

# ------------------------------------------------------------------ labels of ours
WORKSPACE_LABEL: Final = "kaito.sh/workspace"  # also the Service's selector
WORKSPACE_NAMESPACE_LABEL: Final = "kaito.sh/workspacenamespace"
RAGENGINE_LABEL: Final = "kaito.sh/ragengine"
MACHINE_TYPE_LABEL: Final = "kaito.sh/machine-type"
MACHINE_TYPE_GPU: Final = "gpu"
MACHINE_TYPE_CPU: Final = "cpu"
POOL_CREATED_LABEL: Final = "kaito.sh/creation-timestamp"  # on agent pools: the orphan sweep's grace

# ------------------------------------------------------------------ labels of Karpenter's API
PROVISIONER_NAME_LABEL: Final = "karpenter.sh/provisioner-name"
PROVISIONER_NAME: Final = "default"
NODEPOOL_LABEL: Final = "karpenter.sh/nodepool"
NODEPOOL_NAME: Final = "kaito"
REGISTERED_LABEL: Final = "karpenter.sh/registered"
INITIALIZED_LABEL: Final = "karpenter.sh/initialized"
CAPACITY_TYPE_LABEL: Final = "karpenter.sh/capacity-type"
AZURE_SKU_NAME_LABEL: Final = "karpenter.azure.com/sku-name"
AWS_GPU_COUNT_LABEL: Final = "karpenter.k8s.aws/instance-gpu-count"
DO_NOT_SYNC_TAINTS: Final = "karpenter.sh/do-not-sync-taints"  # on a node: its taints are somebody else's

# ------------------------------------------------------------------ labels of Kubernetes and of GPU nodes
INSTANCE_TYPE_LABEL: Final = "node.kubernetes.io/instance-type"
ARCH_LABEL: Final = "kubernetes.io/arch"
OS_LABEL: Final = "kubernetes.io/os"
HOSTNAME_LABEL: Final = "kubernetes.io/hostname"
ZONE_LABEL: Final = "topology.kubernetes.io/zone"
REGION_LABEL: Final = "topology.kubernetes.io/region"
EXCLUDE_FROM_LB_LABEL: Final = "node.kubernetes.io/exclude-from-external-load-balancers"
POD_NAME_LABEL: Final = "statefulset.kubernetes.io/pod-name"
ACCELERATOR_LABEL: Final = "accelerator"
ACCELERATOR_NVIDIA: Final = "nvidia"

# ------------------------------------------------------------------ labels of NVIDIA's feature discovery
GPU_PRODUCT_LABEL: Final = "nvidia.com/gpu.product"
GPU_COUNT_LABEL: Final = "nvidia.com/gpu.count"
GPU_MEMORY_LABEL: Final = "nvidia.com/gpu.memory"  # MiB of one GPU

# ------------------------------------------------------------------ taints
GPU_TAINT_KEY: Final = "sku"
GPU_TAINT_VALUE: Final = "gpu"
GPU_TAINT_EFFECT: Final = "NoSchedule"
DISRUPTED_TAINT: Final = "karpenter.sh/disrupted"
SPOT_TAINT_KEY: Final = "kubernetes.azure.com/scalesetpriority"  # AKS puts it on every spot node
SPOT_TAINT_VALUE: Final = "spot"
UNREGISTERED_TAINT: Final = "karpenter.sh/unregistered"  # on a node until its NodeClaim knows it
UNSCHEDULABLE_TAINT: Final = "node.kubernetes.io/unschedulable"

# ------------------------------------------------------------------ resources
GPU_RESOURCE: Final = "nvidia.com/gpu"
STORAGE_RESOURCE: Final = "storage"

# ------------------------------------------------------------------ annotations
ENABLE_LOAD_BALANCER: Final = "kaito.sh/enablelb"  # exactly "True" makes the Service a LoadBalancer
RUNTIME: Final = "kaito.sh/runtime"
BYPASS_RESOURCE_CHECKS: Final = "kaito.sh/bypass-resource-checks"  # presence turns memory checks into warnings
WORKSPACE_HASH: Final = "workspace.kaito.io/hash"
WORKSPACE_REVISION: Final = "workspace.kaito.io/revision"
UPGRADE: Final = "kaito.sh/upgrade"  # "true": a newer operator's pod template is rolled out without an edit
# On a workload: what its pod template was made of, and by whom.
INPUTS_HASH: Final = "kaito.sh/inputs-hash"
TEMPLATE_HASH: Final = "kaito.sh/template-hash"
RENDERED_BY: Final = "kaito.sh/rendered-by"
UPGRADED_TO: Final = "kaito.sh/upgraded-to"
ADAPTER_MOUNTS: Final = "kaito.sh/adapter-mounts"
CONFIG_HASH: Final = "kaito.sh/config-hash"  # on pods
TUNING_OUTCOME: Final = "kaito.sh/tuning-outcome"  # on a Job: how its pod ended last, for when the pod is gone
NODE_IMAGE_FAMILY: Final = "kaito.sh/node-image-family"
NODE_CLASS_NAME: Final = "kaito.sh/node-class-name"
PERFORMANCE_MODE: Final = "kaito.sh/performance-mode"
USE_LOCAL_WEIGHTS: Final = "kaito.sh/use-local-weights"
MODEL_STREAMING: Final = "kaito.sh/model-streaming"
NODE_PROVISIONING: Final = "kaito.sh/node-provisioning"
PROVISION_AUTO: Final = "auto"  # nodes that match first, new ones for what is missing
PROVISION_NEVER: Final = "never"  # only nodes that match
PROVISION_ALWAYS: Final = "always"  # only nodes made for this Workspace
CAPACITY_TYPE: Final = "kaito.sh/capacity-type"
SPOT: Final = "spot"
ON_DEMAND: Final = "on-demand"
LINKED: Final = "karpenter.sh/linked"
DO_NOT_DISRUPT: Final = "karpenter.sh/do-not-disrupt"
DO_NOT_EVICT: Final = "karpenter.sh/do-not-evict"  # the name of DO_NOT_DISRUPT in the Machine's time
MIRROR_POD: Final = "kubernetes.io/config.mirror"
NODECLAIM_TERMINATION_TIMESTAMP: Final = "karpenter.sh/nodeclaim-termination-timestamp"
CLOUD_OPERATION: Final = "kaito.sh/cloud-operation"  # on a Machine: token of what the cloud is doing for it
CLOUD_OPERATION_STARTED: Final = "kaito.sh/cloud-operation-started"

# Domains of the label keys that KAITO itself writes; a selector made of these alone selects nothing of the user's.
RESERVED_LABEL_DOMAINS: Final = ("kaito.sh", "kaito.io", "karpenter.sh")

# ------------------------------------------------------------------ annotations and labels of adapter images
IMAGE_MODEL_NAME: Final = "sh.kaito.model.name"  # upstream's, since 0.5
IMAGE_MODEL_REVISION: Final = "sh.kaito.model.revision"
IMAGE_TUNING_METHOD: Final = "sh.kaito.tuning.method"
IMAGE_TUNING_PARAMETERS: Final = "sh.kaito.tuning.parameters"  # JSON
IMAGE_DATASET_DIGEST: Final = "sh.kaito.tuning.dataset.digest"
IMAGE_TITLE: Final = "org.opencontainers.image.title"
IMAGE_DESCRIPTION: Final = "org.opencontainers.image.description"

# ------------------------------------------------------------------ the node class of NodeClaims
NODE_CLASS_KIND: Final = "KaitoNodeClass"  # in our own group
NODE_CLASS: Final = "default"

# ------------------------------------------------------------------ names inside a Workspace's objects
INFERENCE_CONFIG_KEY: Final = "inference_config.yaml"
TRAINING_CONFIG_KEY: Final = "training_config.yaml"
ADAPTERS_CONFIG_SUFFIX: Final = "-adapters"
ADAPTERS_CONFIG_KEY: Final = "adapters.json"
ADAPTERS_CONFIG_PATH: Final = "/etc/kaito/adapters"
WEIGHTS_PATH: Final = "/workspace/weights"
HEADLESS_SUFFIX: Final = "-headless"
CONFIG_PATH: Final = "/mnt/config"
ADAPTER_VOLUMES_PATH: Final = "/mnt/adapter"
PULL_SECRETS_PATH: Final = "/etc/kaito/pull-secrets"
PUSH_SECRET_PATH: Final = "/etc/kaito/push"  # noqa: S105 - a folder
DATA_PATH: Final = "/mnt/data"
RESULTS_PATH: Final = "/mnt/results"
WORK_PATH: Final = "/mnt/work"
DOCKER_CONFIG_KEY: Final = ".dockerconfigjson"
CACHE_PATH: Final = "/var/cache/kaito"
SERVER_PORT: Final = 5000
TORCH_PORT: Final = 29500
INSECURE_REGISTRIES: Final = "KAITO_INSECURE_REGISTRIES"  # environment: hosts without TLS, with commas
