"""Facts about instance types that upstream's tables lack, each with where it was read.

In: nothing. Out: constants that ``hack/catalogs.py`` merges into the catalogue. A figure without a citable source
does not belong here: an unknown price or memory size stays absent in the catalogue.
"""

from __future__ import annotations

from typing import Final

# Retail prices in US dollars per hour (Linux, pay as you go and spot) as SkyPilot collected them from Azure's
# retail price API. The same figures stand in skypilot-catalog's pull request 79 of 2024-08-26, which dates them.
# Spot is None where the collection repeats the on-demand price, which means that it had found none.
AZURE_PRICE_SOURCE: Final = (
    "https://github.com/skypilot-org/skypilot-catalog/blob/098741e70562f65d7af1cceb81e33b284f742604/"
    "catalogs/v6/azure/vms.csv"
)
AZURE_PRICE_DATE: Final = "2024-08"

# instance type: (vCPUs, memory in GiB, region of the price, on demand, spot). East US where the type is there.
AZURE: Final[dict[str, tuple[int, int, str, float | None, float | None]]] = {
    "Standard_NC6": (6, 56, "westus2", 0.9, 0.099),
    "Standard_NC12": (12, 112, "westus2", 1.8, 0.198),
    "Standard_NC24": (24, 224, "westus2", 3.6, 0.396),
    "Standard_NC24r": (24, 224, "westus2", 3.96, 0.4356),
    "Standard_NC6s_v3": (6, 112, "eastus", 3.06, 0.3978),
    "Standard_NC12s_v3": (12, 224, "eastus", 6.12, 0.7956),
    "Standard_NC24s_v3": (24, 448, "eastus", 12.24, 1.5912),
    "Standard_NC24rs_v3": (24, 448, "eastus", 13.46, 1.7498),
    "Standard_NC4as_T4_v3": (4, 28, "eastus", 0.526, 0.062699),
    "Standard_NC8as_T4_v3": (8, 56, "eastus", 0.752, 0.089638),
    "Standard_NC16as_T4_v3": (16, 110, "eastus", 1.204, 0.143517),
    "Standard_NC64as_T4_v3": (64, 440, "eastus", 4.352, 0.518758),
    "Standard_NC24ads_A100_v4": (24, 220, "eastus", 3.673, 0.444433),
    "Standard_NC48ads_A100_v4": (48, 440, "eastus", 7.346, 0.888866),
    "Standard_NC96ads_A100_v4": (96, 880, "eastus", 14.692, 1.777732),
    "Standard_NC40ads_H100_v5": (40, 320, "eastus", 6.98, None),
    "Standard_NC80adis_H100_v5": (80, 640, "eastus", 13.96, None),
    "Standard_NCC40ads_H100_v5": (40, 320, "eastus2", 6.98, 1.745),
    "Standard_ND40rs_v2": (40, 672, "eastus", 22.032, 2.42352),
    "Standard_ND96asr_v4": (96, 900, "eastus", 27.197, 2.99167),
    "Standard_ND96amsr_A100_v4": (96, 1800, "eastus", 32.77, 3.6047),
    "Standard_ND96isr_H100_v5": (96, 1900, "eastus", 98.32, None),
    "Standard_NG32ads_V620_v1": (32, 64, "eastus2", 3.63, 0.9075),
    "Standard_NG32adms_V620_v1": (32, 176, "eastus2", None, None),
    "Standard_NV6": (6, 56, "northcentralus", 1.14, 0.1254),
    "Standard_NV12": (12, 112, "northcentralus", 2.28, 0.2508),
    "Standard_NV24": (24, 224, "northcentralus", 4.56, 0.5016),
    "Standard_NV12s_v3": (12, 112, "eastus", 1.14, 0.1254),
    "Standard_NV24s_v3": (24, 224, "eastus", 2.28, 0.2508),
    "Standard_NV48s_v3": (48, 448, "eastus", 4.56, 0.5016),
    "Standard_NV36ads_A10_v5": (36, 440, "eastus", 3.2, 0.8),
    "Standard_NV36adms_A10_v5": (36, 880, "eastus", 4.52, 1.13),
    "Standard_NV72ads_A10_v5": (72, 880, "eastus", 6.52, 1.63),
    # MicrosoftDocs/azure-compute-docs, nd-h200-v5-series-specs.md of 2024-09-12; no price was found.
    "Standard_ND96isr_H200_v5": (96, 1850, "eastus", None, None),
}

# (pattern, date from which no new one can be had, source). The first that fits decides.
# As of commit 0bdc5d34 of MicrosoftDocs/azure-compute-docs.
_SIZES: Final = "https://learn.microsoft.com/azure/virtual-machines/sizes/retirement/retired-sizes-list"
_NV: Final = "https://learn.microsoft.com/azure/virtual-machines/sizes/retirement/nv-series-retirement"
_N_SERIES: Final = "https://learn.microsoft.com/azure/virtual-machines/n-series-migration"
AZURE_RETIRED: Final = (
    (r"Standard_NC\d+r?s_v3$", "2025-09-30", _SIZES),
    (r"Standard_NV(6|12|24)$", "2023-09-06", _NV),
    (r"Standard_NV\d+s_v3$", "2026-09-30", _SIZES),
    (r"Standard_NV\d+as_v4$", "2026-09-30", _SIZES),
    (r"Standard_NC\d+r?$", "2023-08-31", _N_SERIES),
    (r"Standard_NC\d+r?s_v2$", "2023-08-31", _N_SERIES),
    (r"Standard_ND\d+r?s$", "2023-08-31", _N_SERIES),
)

# What the driver reports for one GPU, in MiB, where it is less than the size in the name
# (https://thundergolfer.com/blog/nvidia-gpu-memory-capacity). Azure's A10 is a virtual GPU with another figure.
REPORTED_MIB: Final = {
    ("NVIDIA H200", 141): 143_771,
    ("NVIDIA H100", 80): 81_559,
    ("NVIDIA A10G", 24): 23_028,
    ("NVIDIA L4", 24): 23_034,
    ("NVIDIA T4", 16): 15_360,
}

# A part of a GPU that the hypervisor hands out (Azure's NVads A10 v5).
PARTIAL: Final = r"Standard_NV(6|12|18)ads_A10_v5$"
# Arm processors: the Machine that the operator asks for is amd64.
ARM: Final = r"g5g\."
# Upstream's tables spell these as no cloud does: instance type → the cloud's own name.
MISSPELT: Final = {
    "Standard_ND96asr_A100_v4": "Standard_ND96asr_v4",  # learn.microsoft.com, ndasra100v4-series
}
