"""Whether a webhook configuration may be stored: what would otherwise fail at every request that it concerns.

In: a configuration after defaulting. Out: the fields that are wrong, worded as the real server words them. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kaito.local.apiserver.fielderrors import FieldError, duplicate, invalid, not_supported, required
from manager.types import Obj

__all__ = ["validate_configuration"]

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_VERSIONS = ("v1", "v1beta1")
_OPERATIONS = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]
_SCOPES = ["*", "Cluster", "Namespaced"]
_SECONDS = range(1, 31)


def validate_configuration(obj: Obj) -> Iterator[FieldError]:
    """The rules of both kinds of configuration."""
    seen: set[str] = set()
    for index, hook in enumerate(obj.get("webhooks") or ()):
        here = f"webhooks[{index}]"
        name = str(hook.get("name") or "")
        if name in seen:
            yield duplicate(f"{here}.name", name)
        seen.add(name)
        yield from _hook(hook, name, here)


def _hook(hook: Obj, name: str, here: str) -> Iterator[FieldError]:
    if not name:
        yield required(f"{here}.name")
    elif not _SUBDOMAIN.fullmatch(name) or name.count(".") < 2:
        yield invalid(f"{here}.name", name, "should be a domain with at least three segments separated by dots")
    if not any(version in _VERSIONS for version in hook.get("admissionReviewVersions") or ()):
        known = ", ".join(_VERSIONS)
        yield invalid(
            f"{here}.admissionReviewVersions",
            hook.get("admissionReviewVersions"),
            f"must include at least one of {known}",
        )
    if hook.get("failurePolicy") not in ("Fail", "Ignore"):
        yield not_supported(f"{here}.failurePolicy", hook.get("failurePolicy"), ["Fail", "Ignore"])
    if hook.get("matchPolicy") not in ("Equivalent", "Exact"):
        yield not_supported(f"{here}.matchPolicy", hook.get("matchPolicy"), ["Equivalent", "Exact"])
    if not hook.get("sideEffects"):
        yield required(f"{here}.sideEffects", "must specify one of None, NoneOnDryRun")
    elif hook["sideEffects"] not in ("None", "NoneOnDryRun"):
        yield not_supported(f"{here}.sideEffects", hook["sideEffects"], ["None", "NoneOnDryRun"])
    if hook.get("timeoutSeconds") not in _SECONDS:
        rule = "the timeout value must be between 1 and 30 seconds"
        yield invalid(f"{here}.timeoutSeconds", hook.get("timeoutSeconds"), rule)
    if hook.get("reinvocationPolicy") not in (None, "Never", "IfNeeded"):
        yield not_supported(f"{here}.reinvocationPolicy", hook["reinvocationPolicy"], ["IfNeeded", "Never"])
    yield from validate_client(hook.get("clientConfig") or {}, f"{here}.clientConfig")
    for index, rule in enumerate(hook.get("rules") or ()):
        yield from _rule(rule, f"{here}.rules[{index}]")


def validate_client(client: Obj, here: str) -> Iterator[FieldError]:
    """The rules of a ``clientConfig``: of an admission webhook or of a conversion."""
    url, service = client.get("url"), client.get("service")
    if (url is None) == (service is None):
        yield required(here, "exactly one of url or service is required")
    if url is not None and not str(url).startswith("https://"):
        rule = 'url must start with "https://"' if "://" in str(url) else "host must be specified"
        yield invalid(f"{here}.url", url, rule)
    for field in ("name", "namespace"):
        if service is not None and not service.get(field):
            yield required(f"{here}.service.{field}", f"service {field} is required")


def _rule(rule: Obj, here: str) -> Iterator[FieldError]:
    for field in ("apiGroups", "apiVersions", "operations", "resources"):
        values = rule.get(field) or []
        if not values:
            yield required(f"{here}.{field}")
        elif "*" in values and len(values) > 1 and field != "resources":
            yield invalid(f"{here}.{field}", values, "if '*' is present, must not specify other values")
    for index, operation in enumerate(rule.get("operations") or ()):
        if operation not in _OPERATIONS:
            yield not_supported(f"{here}.operations[{index}]", operation, list(_OPERATIONS))
    if rule.get("scope") not in _SCOPES:
        yield not_supported(f"{here}.scope", rule.get("scope"), list(_SCOPES))
