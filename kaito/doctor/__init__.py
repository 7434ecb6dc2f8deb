"""``kaito doctor``: whether a cluster, and the cloud behind it, have what the operator needs; the fix if not."""

from __future__ import annotations
