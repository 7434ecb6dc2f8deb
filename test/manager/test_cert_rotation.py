"""The life of a Secret of certificates, decided by content and time alone; years pass in a loop."""

from __future__ import annotations

import datetime as dt
import os
import random
from dataclasses import replace

import pytest

from manager.certs.pems import Certificate, Pair, certificates, make_authority, make_serving
from manager.certs.rotation import PUBLISHED, Material, Policy, RealMint, Step, advance, read_secret, write_secret

NAMES = ("hook.ns.svc", "127.0.0.1")
START = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
DAY, HOUR, MINUTE = dt.timedelta(days=1), dt.timedelta(hours=1), dt.timedelta(minutes=1)
POLICY = Policy()
MINT = RealMint("test", NAMES)


def step(
    material: Material | None, now: dt.datetime, *, published: bool = True, names: tuple[str, ...] = NAMES
) -> Step:
    return advance(material, now, names=names, policy=POLICY, mint=RealMint("test", names), published=published)


def serving(material: Material) -> Certificate:
    return certificates(material.serving.cert)[0]


def signer(material: Material) -> int:
    """The place in the bundle of the authority that signed the serving certificate."""
    return next(i for i, a in enumerate(material.bundle) if serving(material).issued_by(a))


FIRST = step(None, START, published=False).material


def test_a_first_secret_has_all_that_is_needed() -> None:
    """An authority for ten years and a certificate for one, both from an hour ago, for all names."""
    authority, certificate = FIRST.bundle[0], serving(FIRST)

    assert len(FIRST.bundle) == 1
    assert (authority.not_before, authority.not_after) == (START - HOUR, START + 3650 * DAY)
    assert (certificate.not_before, certificate.not_after) == (START - HOUR, START + 365 * DAY)
    assert certificate.issued_by(authority)
    assert certificate.covers(NAMES)
    assert certificate.fits(FIRST.serving.key)
    assert authority.fits(FIRST.ca_key)


@pytest.mark.parametrize("published", [True, False])
def test_what_is_good_stays(published: bool) -> None:
    """The same content comes back, with the time of the next renewal, 90 days before the end."""
    found = step(FIRST, START + 200 * DAY, published=published)

    assert found.material == FIRST
    assert found.reasons == ()
    assert found.wake == START + (365 - 90) * DAY


def test_a_serving_certificate_is_renewed_ahead_by_the_same_authority() -> None:
    """A moment before it stays, at 90 days it is replaced; the bundle does not change."""
    due = START + (365 - 90) * DAY

    assert step(FIRST, due - MINUTE).material == FIRST
    renewed = step(FIRST, due).material
    assert renewed.bundle == FIRST.bundle
    assert serving(renewed).not_after == due + 365 * DAY


def test_other_names_get_another_certificate() -> None:
    """The same authority certifies the new names at once."""
    renewed = step(FIRST, START + DAY, names=("other.ns.svc",)).material

    assert serving(renewed).covers(["other.ns.svc"])
    assert renewed.bundle == FIRST.bundle


def test_an_authority_is_replaced_with_an_overlap() -> None:
    """Announced, published, settled, used, and the old one retired: never one step before its time."""
    lost = replace(FIRST, ca_key=b"")
    now = START + DAY

    announced = step(lost, now, published=True).material  # "published" was about the old authority
    assert len(announced.bundle) == 2
    assert announced.bundle[1] == FIRST.bundle[0]
    assert announced.serving == FIRST.serving

    unpublished = step(announced, now + 9 * DAY, published=False).material
    assert unpublished == announced

    now += 10 * DAY
    noted = step(announced, now, published=True)
    assert noted.material.published == (announced.bundle[0].fingerprint, now)
    assert noted.material.serving == FIRST.serving
    assert noted.wake == now + POLICY.settle

    early = step(noted.material, now + POLICY.settle - dt.timedelta(seconds=1))
    assert early.material == noted.material

    now += POLICY.settle
    used = step(noted.material, now)
    assert signer(used.material) == 0
    assert used.material.bundle == announced.bundle
    assert used.wake == now + POLICY.overlap

    assert step(used.material, now + POLICY.overlap - MINUTE).material == used.material
    retired = step(used.material, now + POLICY.overlap).material
    assert retired.bundle == announced.bundle[:1]
    assert retired.serving == used.material.serving


def test_a_publication_that_is_undone_starts_anew() -> None:
    """Somebody took the new authority out of a configuration again: the wait begins when it is back."""
    announced = step(replace(FIRST, ca_key=b""), START).material
    noted = step(announced, START + MINUTE).material

    undone = step(noted, START + 10 * MINUTE, published=False).material
    again = step(undone, START + 11 * MINUTE).material

    assert undone.published is None
    assert again.serving == FIRST.serving
    assert again.published == (announced.bundle[0].fingerprint, START + 11 * MINUTE)


def test_a_certificate_that_has_expired_is_not_waited_for() -> None:
    """A roll-over whose publication never came ends when there is nothing left to protect."""
    announced = step(replace(FIRST, ca_key=b""), START).material

    assert step(announced, START + 365 * DAY - MINUTE, published=False).material.serving == FIRST.serving
    assert signer(step(announced, START + 365 * DAY, published=False).material) == 0


@pytest.mark.parametrize("damage", ["tls.key", "tls.crt", "foreign", "not yet"])
def test_an_unusable_serving_certificate_is_replaced_at_once(damage: str) -> None:
    """Key or certificate lost, signed by somebody else, or not valid yet: the authority stays."""
    other = make_authority("other", not_before=START - HOUR, not_after=START + DAY)
    broken = {
        "tls.key": Pair(FIRST.serving.cert, b""),
        "tls.crt": Pair(b"rubbish", FIRST.serving.key),
        "foreign": make_serving(other, NAMES, not_before=START - HOUR, not_after=START + 300 * DAY),
        "not yet": MINT.serving(Pair(FIRST.bundle[0].pem, FIRST.ca_key), START + 2 * DAY, START + 300 * DAY),
    }[damage]

    repaired = step(replace(FIRST, serving=broken), START + DAY, published=False).material

    assert repaired.bundle == FIRST.bundle
    assert signer(repaired) == 0
    assert serving(repaired).fits(repaired.serving.key)


@pytest.mark.parametrize(
    "material",
    [Material(), Material(serving=FIRST.serving), replace(FIRST, bundle=()), replace(FIRST, ca_key=b"rubbish")],
    ids=["empty", "no authority", "bundle lost", "rubbish for a key"],
)
def test_rubbish_is_repaired(material: Material) -> None:
    """What comes out can serve, and trusts what it serves."""
    repaired = step(material, START + DAY, published=False).material

    assert serving(repaired).issued_by(repaired.bundle[signer(repaired)])
    assert repaired.bundle[0].fits(repaired.ca_key)


def test_authorities_that_nobody_needs_any_more_leave() -> None:
    """Two roll-overs in a row: the oldest goes, the signer of what is served stays."""
    once = step(replace(FIRST, ca_key=b""), START).material
    twice = step(replace(once, ca_key=b""), START + MINUTE).material
    assert len(twice.bundle) == 3

    later = step(twice, START + 2 * DAY, published=False).material

    assert later.bundle == (twice.bundle[0], FIRST.bundle[0])
    assert later.serving == FIRST.serving


def test_a_secret_keeps_what_it_is_given() -> None:
    """Written and read, the content is the same, and rubbish in a Secret reads as missing."""
    noted = replace(FIRST, published=("abc", START))

    assert read_secret(write_secret(noted)) == noted
    assert write_secret(FIRST)["metadata"]["annotations"] == {PUBLISHED: None}
    assert read_secret({"data": {"ca.crt": "%%%", "tls.crt": None}}) == Material()
    for words in ("x", "x yesterday", "x 2030-01-01T00:00:00"):
        assert read_secret({"metadata": {"annotations": {PUBLISHED: words}}}).published is None


def test_nothing_shows_a_key() -> None:
    """Neither the content nor a pair has its key in its repr."""
    for shown in (repr(FIRST), repr(FIRST.serving), repr(step(FIRST, START))):
        assert "PRIVATE" not in shown


def test_a_policy_that_would_never_rest_is_refused() -> None:
    """What is always about to end would be replaced for ever."""
    with pytest.raises(ValueError, match="must live longer"):
        Policy(serving=30 * DAY)


def test_no_moment_of_many_years_breaks_a_connection(seed: int) -> None:
    """Three replicas that act at odd times and a lagging API server: what any replica serves is always trusted.

    Now and then somebody removes the authority's key or the whole Secret. Replicas see the Secret within 12 hours,
    the API server sees the configuration within four minutes.
    """
    chance = random.Random(seed)
    now, end = START, START + (30 if os.environ.get("KAITO_SOAK") else 8) * 365 * DAY
    secret = FIRST
    target: list[tuple[dt.datetime, bytes]] = [(now, FIRST.bundle_pem)]  # when it was written, what
    replicas = [(now, FIRST)] * 3  # when each has read the Secret, and what it read
    rolled = served = 0
    while now < end:
        found = secret
        if chance.random() < 0.05 or (not rolled and now > START + 365 * DAY):
            found = replace(secret, ca_key=b"", published=None)
        published = secret.bundle[0].pem.strip() in target[-1][1]
        result = step(found, now, published=published)
        rolled += result.material.bundle[0] != secret.bundle[0]
        served += result.material.serving != secret.serving
        secret = result.material
        replicas[chance.randrange(3)] = (now, secret)  # who acts knows at once
        if target[-1][1] != secret.bundle_pem and chance.random() < 0.8:
            target.append((now, secret.bundle_pem))
        pauses = (
            [MINUTE, 6 * MINUTE, 3 * HOUR, 12 * HOUR] if len(secret.bundle) > 1 else [HOUR, 30 * DAY, 90 * DAY]
        )
        wake = min(result.wake, now + chance.choice(pauses))
        for moment in (now, now + (wake - now) / 2, wake - dt.timedelta(seconds=1)):
            replicas = [
                (moment, secret) if moment - read >= 12 * HOUR else (read, held) for read, held in replicas
            ]
            seen = next(bundle for since, bundle in reversed(target) if since <= max(moment - 4 * MINUTE, START))
            trusted = [seen, *(bundle for since, bundle in target if since > moment - 4 * MINUTE)]
            for _, held in replicas:
                shown = serving(held)
                assert shown.valid(moment)
                assert all(any(shown.issued_by(a) for a in certificates(bundle)) for bundle in trusted)
        now = max(wake, now + dt.timedelta(seconds=1))

    assert rolled >= 1
    assert served >= 8
