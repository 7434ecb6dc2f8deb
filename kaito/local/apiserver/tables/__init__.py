"""Server-side tables: what ``kubectl get`` prints, as meta.k8s.io/v1 Table objects.

In: a resource type, its objects and the time. Out: a Table whose columns and cells are those of the real
server for built-in kinds, and those of ``additionalPrinterColumns`` for custom resources; anything else has
NAME and AGE. Pure: the clock is an argument, objects are only read.
"""

from __future__ import annotations

from .render import render_table

__all__ = ["render_table"]
