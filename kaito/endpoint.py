"""Which URL to call: the exact commands for the endpoint of a Workspace.

In: its Service and the name of its model. Out: lines to paste into a shell. Pure. Both doors are named, because
old and new documents of KAITO each know one of them.
"""

from __future__ import annotations

import json
import shlex

from kaito.chat import url_of
from kaito.errors import CliError
from manager.types import Obj

_QUESTION = "What is KAITO?"
_JSON = "Content-Type: application/json"


def curls(service: Obj, model: str) -> list[str]:
    """The commands that ask the endpoint; empty where the Service has no address of its own."""
    address = _balanced(service)
    try:
        base = f"http://{address}" if address else url_of(service)
    except CliError:
        return []
    chat = {"prompt": _QUESTION}
    openai = {"model": model, "messages": [{"role": "user", "content": _QUESTION}]}
    return [_curl(f"{base}/chat", chat), *([_curl(f"{base}/v1/chat/completions", openai)] if model else [])]


def from_outside(service: Obj) -> str:
    """The command that makes an address of the cluster's inside answer here; empty where there is no need."""
    if _balanced(service) or "127." in str((service.get("spec") or {}).get("clusterIP") or ""):
        return ""
    meta = service["metadata"]
    return f"kubectl -n {meta['namespace']} port-forward service/{meta['name']} 8080:80"


def _balanced(service: Obj) -> str:
    entries = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    return next((str(item.get("ip") or item.get("hostname") or "") for item in entries), "")


def _curl(url: str, body: Obj) -> str:
    return f"curl -X POST {url} -H {shlex.quote(_JSON)} -d {shlex.quote(json.dumps(body))}"
