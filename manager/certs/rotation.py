"""What a Secret of certificates must become next: a pure function of its content and the time.

The Secret holds ``ca.crt`` (all authorities to trust, the signing one first), ``ca.key`` (of that one),
``tls.crt`` and ``tls.key``. An authority is replaced without a moment in which somebody trusts too little:

1. **steady**: the serving certificate is signed by the first authority.
2. **announced**: a new authority stands first; the serving certificate is still the old authority's. Clients are
   given both. The old key is gone already: nothing signs with it any more.
3. **published**: every client configuration has been seen to hold the new authority. The moment is noted in an
   annotation; a while later (API servers follow their configuration by watches) the serving certificate is
   replaced.
4. **overlap**: the new certificate is served, both authorities are trusted, until every replica has surely taken
   it over (they read the Secret at least every 12 h). Then the old authority leaves: **steady**.

A state is told by the content alone, so any replica can carry on where another stopped. What is unusable is
replaced at once: there is nothing to protect then. Losing ``ca.key`` (or removing it, to force a roll-over) and
losing the whole Secret lead to step 2 like the end of an authority's time does.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from manager.certs.pems import Certificate, Pair, certificates, make_authority, make_serving
from manager.types import Obj

PUBLISHED = "cert-rotation/ca-published"
"""Annotation of the Secret: which authority has been seen in every client configuration, and since when."""


_NOTHING = Pair(b"", b"")


@dataclass(frozen=True, slots=True)
class Policy:
    """How long things last.

    Attributes:
        ca: life of an authority.
        serving: life of a serving certificate.
        backdate: how far starts of validity lie in the past, for clocks that are behind.
        lookahead: what ends sooner than this is replaced.
        settle: from "published" to the use of a new authority: how far API servers may lag behind a write.
        overlap: how long an old authority is trusted after its last serving certificate was replaced.
    """

    ca: dt.timedelta = dt.timedelta(days=3650)
    serving: dt.timedelta = dt.timedelta(days=365)
    backdate: dt.timedelta = dt.timedelta(hours=1)
    lookahead: dt.timedelta = dt.timedelta(days=90)
    settle: dt.timedelta = dt.timedelta(minutes=5)
    overlap: dt.timedelta = dt.timedelta(hours=24)

    def __post_init__(self) -> None:
        if not self.lookahead < min(self.ca, self.serving):
            raise ValueError("what is replaced ahead of its end must live longer than that time")


@dataclass(frozen=True, slots=True)
class Material:
    """The Secret's content, as found: any part may be missing or rubbish."""

    bundle: tuple[Certificate, ...] = ()
    ca_key: bytes = field(default=b"", repr=False)
    serving: Pair = _NOTHING
    published: tuple[str, dt.datetime] | None = None

    @property
    def bundle_pem(self) -> bytes:
        """What clients are to trust."""
        return b"".join(authority.pem for authority in self.bundle)


class Mint(Protocol):
    """Who makes certificates: the only part of a step that is not a function of its arguments."""

    def authority(self, not_before: dt.datetime, not_after: dt.datetime) -> Pair:
        """A new authority."""
        ...

    def serving(self, authority: Pair, not_before: dt.datetime, not_after: dt.datetime) -> Pair:
        """A new serving certificate."""
        ...


@dataclass(frozen=True, slots=True)
class RealMint:
    """Makes real ones, for these names."""

    name: str
    names: tuple[str, ...]

    def authority(self, not_before: dt.datetime, not_after: dt.datetime) -> Pair:
        """See ``Mint``."""
        return make_authority(self.name, not_before=not_before, not_after=not_after)

    def serving(self, authority: Pair, not_before: dt.datetime, not_after: dt.datetime) -> Pair:
        """See ``Mint``."""
        return make_serving(authority, self.names, not_before=not_before, not_after=not_after)


@dataclass(frozen=True, slots=True)
class Step:
    """What follows from a state. ``material`` equals the input when there is nothing to write.

    Attributes:
        wake: when the next change is due if nothing else happens.
        reasons: what was done, for the log.
    """

    material: Material
    wake: dt.datetime
    reasons: tuple[str, ...] = ()


def advance(
    found: Material | None,
    now: dt.datetime,
    *,
    names: Sequence[str],
    policy: Policy,
    mint: Mint,
    published: bool,
) -> Step:
    """The state that the Secret should have now.

    Args:
        found: the present one; None when there is no Secret.
        published: whether every client configuration was just seen to trust the first authority.
    """
    state = found or Material()
    reasons: list[str] = []
    problem = _authority_problem(state, now, policy)
    if problem:
        made = mint.authority(now - policy.backdate, now + policy.ca)
        kept = tuple(authority for authority in state.bundle if now < authority.not_after)
        state = replace(state, bundle=(*certificates(made.cert), *kept), ca_key=made.key, published=None)
        published = False
        reasons.append(f"new authority: {problem}")
    first = state.bundle[0]
    wake = [first.not_after - policy.lookahead]

    state, due, why = _renewed(state, now, names, policy, mint, published)
    wake.append(due)
    reasons += why

    issued = certificates(state.serving.cert)[0]
    issuer = next(authority for authority in state.bundle if issued.issued_by(authority))
    retire = issued.not_before + policy.backdate + policy.overlap
    others = [authority for authority in state.bundle if authority not in (first, issuer)]
    if others and now >= retire:
        reasons += [f"authority retired: {authority.fingerprint}" for authority in others]
        state = replace(state, bundle=(first,) if issuer is first else (first, issuer))
    elif others:
        wake.append(retire)
    return Step(state, min(moment for moment in wake if moment > now), tuple(reasons))


def _authority_problem(state: Material, now: dt.datetime, policy: Policy) -> str:
    if not state.bundle:
        return "there is none"
    first = state.bundle[0]
    if not first.fits(state.ca_key):
        return "its key is missing or not its own"
    if not first.valid(now):
        return "it is outside its time"
    if now >= first.not_after - policy.lookahead:
        return "it ends soon"
    return ""


def _renewed(
    state: Material, now: dt.datetime, names: Sequence[str], policy: Policy, mint: Mint, published: bool
) -> tuple[Material, dt.datetime, list[str]]:
    """The state with a usable serving certificate, when that needs attention again, and what was done."""
    first = state.bundle[0]
    never = dt.datetime.max.replace(tzinfo=dt.UTC)

    def issue(why: str) -> tuple[Material, dt.datetime, list[str]]:
        end = min(now + policy.serving, first.not_after)
        pair = mint.serving(Pair(first.pem, state.ca_key), now - policy.backdate, end)
        # One that the authority's end cuts short is renewed by the authority's successor.
        due = end - policy.lookahead if end < first.not_after else never
        return replace(state, serving=pair), due, [f"new serving certificate: {why}"]

    parsed = certificates(state.serving.cert)
    issuer = next((a for a in state.bundle if parsed and parsed[0].issued_by(a) and a.valid(now)), None)
    if not parsed or issuer is None or not parsed[0].fits(state.serving.key) or not parsed[0].valid(now):
        return issue("there is no usable one")
    current = parsed[0]
    if issuer is first:
        if not current.covers(names):
            return issue("its names have changed")
        if now >= current.not_after - policy.lookahead and current.not_after < first.not_after:
            return issue("it ends soon")
        return state, current.not_after - policy.lookahead, []
    end_of_use = min(current.not_after, issuer.not_after)
    if not published:
        return replace(state, published=None), end_of_use, []
    if state.published is None or state.published[0] != first.fingerprint:
        noted = replace(state, published=(first.fingerprint, now))
        return noted, now + policy.settle, ["the new authority is published"]
    usable_from = state.published[1] + policy.settle
    if now >= usable_from:
        return issue("by the new authority")
    return state, min(usable_from, end_of_use), []


# ---------------------------------------------------------------------- the Secret


def read_secret(secret: Obj) -> Material:
    """What a Secret holds; what cannot be read counts as missing."""
    data = secret.get("data") or {}

    def value(key: str) -> bytes:
        try:
            return base64.b64decode(data.get(key) or "", validate=True)
        except (binascii.Error, ValueError, TypeError):
            return b""

    note = ((secret.get("metadata") or {}).get("annotations") or {}).get(PUBLISHED, "")
    fingerprint, _, moment = note.partition(" ")
    published = None
    try:
        published = (fingerprint, dt.datetime.fromisoformat(moment)) if moment else None
    except ValueError:
        pass  # somebody's own words: it is noted anew
    if published is not None and published[1].tzinfo is None:
        published = None
    return Material(
        bundle=tuple(certificates(value("ca.crt"))),
        ca_key=value("ca.key"),
        serving=Pair(value("tls.crt"), value("tls.key")),
        published=published,
    )


def write_secret(material: Material) -> Obj:
    """The parts of a Secret that this material determines: a merge patch; foreign keys and labels survive it."""
    values = {
        "ca.crt": material.bundle_pem,
        "ca.key": material.ca_key,
        "tls.crt": material.serving.cert,
        "tls.key": material.serving.key,
    }
    published = material.published
    note = f"{published[0]} {published[1].isoformat()}" if published else None
    return {
        "metadata": {"annotations": {PUBLISHED: note}},
        "data": {key: base64.b64encode(content).decode() for key, content in values.items()},
    }
