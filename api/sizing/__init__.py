"""How many GPUs and nodes a model needs, how it is laid over them, and which instance type to take.

In: what is known of a model, of an instance type and of the wish (context, nodes). Out: one ``Sizing`` with every
figure that led to it, or a ``Choice`` among instance types with the reason for each one that was passed over. All
of it is pure: no clock, no I/O, the same answer for the same input. ``upstream`` reproduces upstream's estimator.
"""

from __future__ import annotations

from api.sizing.choose import Choice, Option, Passed, Wish, choose, cost, unusable
from api.sizing.engine import Limit, engine_limits
from api.sizing.era import gpus_per_node, node_count
from api.sizing.facts import Assumptions, GpuFacts, ModelFacts
from api.sizing.memory import Budget, Layout
from api.sizing.prices import Price, PriceBook, packaged_prices
from api.sizing.size import Candidate, Sizing, size
from api.sizing.tuning import SAMPLE_TOKENS, TuningFit, TuningOption, choose_for_tuning, tuning_fit

__all__ = [
    "SAMPLE_TOKENS",
    "Assumptions",
    "Budget",
    "Candidate",
    "Choice",
    "GpuFacts",
    "Layout",
    "Limit",
    "ModelFacts",
    "Option",
    "Passed",
    "Price",
    "PriceBook",
    "Sizing",
    "TuningFit",
    "TuningOption",
    "Wish",
    "choose",
    "choose_for_tuning",
    "cost",
    "engine_limits",
    "gpus_per_node",
    "node_count",
    "packaged_prices",
    "size",
    "tuning_fit",
    "unusable",
]
