"""A chain for a person: the answer in the first line, the story, and what to type in the last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kaito.console import paint
from kaito.explain.chain import Chain, Verdict
from kaito.explain.moments import Moment
from kaito.explain.next import turn_words

_SHOWN = 40  # moments; older ones are in -o wide and -o json


def render(chain: Chain, *, wide: bool = False) -> str:
    """The chain as text."""
    return "\n".join(_lines(chain, wide=wide))


def headline(chain: Chain) -> str:
    """The answer in one line."""
    where = f"{chain.namespace}/{chain.name}" if chain.namespace else chain.name
    title = paint(f"{chain.kind} {where}", "bold")
    if chain.blocking is None:
        return f"{title}: {paint('Ready', 'green')}"
    style = "yellow" if chain.blocking.passes else "red"
    words = dict.fromkeys((chain.state, chain.blocking.reason))  # "Deleting" is both
    what = paint(", ".join(words), style)
    return f"{title}: {what} (turn: {turn_words(chain.blocking.turn)})"


def _lines(chain: Chain, *, wide: bool) -> Iterator[str]:
    yield headline(chain)
    if chain.moments:
        yield ""
        yield from _timeline(chain.moments, wide=wide)
    for item in chain.beside:
        yield ""
        yield from _verdict(item, "beside")
    yield ""
    if chain.blocking is None:
        yield f"  {paint('✔', 'green')} nothing is in the way"
    else:
        yield from _verdict(chain.blocking, "blocked by")
    if chain.wait:
        yield f"    wait: {chain.wait}"
    for number, command in enumerate(chain.endpoint):
        yield f"    {'call:' if number == 0 else '  or:'} {command}"
    if chain.outside:
        yield f"    from outside the cluster, first: {chain.outside}"
    for note in chain.notes:
        yield f"    {paint(f'note: {note}', 'dim')}"


def _timeline(moments: Sequence[Moment], *, wide: bool) -> Iterator[str]:
    shown = moments if wide else moments[-_SHOWN:]
    if len(shown) < len(moments):
        yield f"  {len(moments) - len(shown)} earlier moments are in -o wide"
    who = max(len(item.who) for item in shown)
    name = max(len(item.name) for item in shown)
    day = None
    for item in shown:
        if item.at.date() != day:
            day = item.at.date()
            yield f"  {paint(day.isoformat(), 'dim')}"
        mark = paint("✘", "red") if item.bad else " "
        times = f" ({item.count} times)" if item.count > 1 else ""
        clock = item.at.strftime("%H:%M:%S")
        yield f"  {clock} {mark} {item.who.ljust(who)}  {item.name.ljust(name)}  {item.text}{times}"


def _verdict(item: Verdict, title: str) -> Iterator[str]:
    mark = paint("·", "yellow") if item.passes else paint("✘", "red")
    yield f"  {mark} {title} {paint(item.reason, 'bold')}: {item.message}"
    yield f"    turn: {turn_words(item.turn)}"
    for number, command in enumerate(item.next):
        yield f"    {'next:' if number == 0 else '  or:'} {command}"
