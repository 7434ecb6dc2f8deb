"""An audit as a table with its sum, and as JSON. The field names of the JSON are a contract: add, never rename.

In: an ``Audit``. Out: text. Pure. Times are hours, money is per hour; null is what nobody knows.
"""

from __future__ import annotations

from typing import Any

from controllers.audit import Audit, Finding, Leak
from kaito.console import table

_HEAD = ["FINDING", "NAME", "TYPE", "MADE FOR", "AGE", "GPU HOURS", "PER HOUR"]


def render(found: Audit) -> str:
    """What a person reads."""
    counts = ((found.instances, "instance"), (found.machines, "Machine"), (found.nodes, "node"))
    counted = ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts) + " compared"
    waiting = [
        f"{count} {what}"
        for count, what in ((found.young, "too young to judge"), (found.deleting, "being deleted"))
        if count
    ]
    counted += f" ({', '.join(waiting)})" if waiting else ""
    if not found.findings:
        return f"Nothing leaks: {counted}."
    lines = [table([_HEAD, *(_row(item) for item in found.findings)]), ""]
    lines += [f"{item.name}: {item.detail}. Next: {item.next_step}." for item in found.findings]
    lines += ["", f"{counted}."]
    if found.orphans:
        lines.append(_sum(found))
    return "\n".join(lines)


def to_obj(found: Audit) -> dict[str, Any]:
    """What a program reads."""
    return {
        "clean": not found.findings,
        "compared": {"instances": found.instances, "machines": found.machines, "nodes": found.nodes},
        "young": found.young,
        "deleting": found.deleting,
        "orphanedGpuHours": round(found.gpu_hours, 2),
        "orphanedPerHour": {currency: round(amount, 4) for currency, amount in found.per_hour.items()},
        "findings": [_obj(item) for item in found.findings],
    }


def age(seconds: float | None) -> str:
    """An age as kubectl shows it, coarse; a dash where nobody knows."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def _row(item: Finding) -> list[str]:
    return [
        str(item.leak),
        item.name,
        item.instance_type or "-",
        item.owner or "-",
        age(item.age),
        "-" if item.gpu_hours is None else f"{item.gpu_hours:.1f}",
        "-" if item.per_hour is None else f"{item.per_hour:.2f} {item.currency}",
    ]


def _sum(found: Audit) -> str:
    orphans = found.orphans
    money = " and ".join(f"{amount:.2f} {currency} per hour" for currency, amount in found.per_hour.items())
    unknown = [item.name for item in orphans if item.per_hour is None]
    text = f"{len(orphans)} orphaned, {found.gpu_hours:.1f} GPU-hours so far"
    text += f", {money}" if money else ""
    return text + (f"; no price is known for {', '.join(unknown)} (give one with --prices)." if unknown else ".")


def _obj(item: Finding) -> dict[str, Any]:
    return {
        "finding": str(item.leak),
        "name": item.name,
        "instanceType": item.instance_type or None,
        "owner": item.owner or None,
        "ageHours": None if item.age is None else round(item.age / 3600, 2),
        "gpus": item.gpus,
        "gpuHours": None if item.gpu_hours is None else round(item.gpu_hours, 2),
        "perHour": item.per_hour,
        "currency": item.currency or None,
        "detail": item.detail,
        "nextStep": item.next_step,
        "deletable": item.leak is Leak.INSTANCE_WITHOUT_MACHINE,
    }
