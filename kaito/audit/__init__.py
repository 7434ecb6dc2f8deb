"""``kaito audit``: what the cloud has and the cluster does not know of, in hours and money, and its removal."""

from __future__ import annotations
