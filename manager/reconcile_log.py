"""What a log line of a reconcile says about it: which controller, which object, which of its many runs.

The controller sets it for the tasks of its workers; whatever is called from a reconcile can ask. The keys are
controller-runtime's, written as ``key=value``.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar

from manager.types import Request

reconcile_id: ContextVar[str] = ContextVar("reconcile_id", default="")
"""The id of the reconcile that runs in this context, a UUID; empty outside of reconciles."""

controller_fields: ContextVar[str] = ContextVar("controller_fields", default="")
"""The keys of the controller whose worker this is."""

request_in_work: ContextVar[Request] = ContextVar("request_in_work")
"""The key that is being reconciled."""


def log_fields() -> str:
    """``controller=... controllerGroup=... controllerKind=... namespace=... name=... reconcileID=...``; empty
    outside of reconciles."""
    run = reconcile_id.get()
    if not run:
        return ""
    request = request_in_work.get()
    return f"{controller_fields.get()} namespace={request.namespace} name={request.name} reconcileID={run}"


class ReconcileFields(logging.Filter):
    """Appends :func:`log_fields` to what reconcilers, and what they call, log; for a program's log handler."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Never drops anything."""
        fields = log_fields()
        if fields and "reconcileID=" not in record.getMessage():
            record.msg, record.args = f"{record.getMessage()} {fields}", None
        return True
