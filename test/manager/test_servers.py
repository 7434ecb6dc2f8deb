"""The words of a probe (behaviours F20)."""

from __future__ import annotations

import pytest

from manager.servers import Check, Probes

GOOD: Check = lambda: None  # noqa: E731
BAD: Check = lambda: "broken"  # noqa: E731


@pytest.mark.parametrize(
    ("path", "checks", "query", "status", "body"),
    [
        ("/healthz", {}, {}, 200, "ok"),
        ("/healthz", {}, {"verbose": [""]}, 200, "[+]ping ok\nhealthz check passed\n"),
        (
            "/readyz",
            {"a": GOOD, "b": BAD},
            {},
            500,
            "[+]a ok\n[-]b failed: reason withheld\nreadyz check failed\n",
        ),
        ("/readyz", {"a": GOOD, "b": BAD}, {"exclude": ["b"]}, 200, "ok"),
        ("/readyz/a", {"a": GOOD, "b": BAD}, {}, 200, "ok"),
        ("/readyz/b", {"a": GOOD, "b": BAD}, {"exclude": ["x"]}, 500, None),
        ("/readyz/c", {"a": GOOD}, {}, 404, None),
    ],
    ids=["ping", "verbose", "failing", "excluded", "single-good", "single-bad", "unknown"],
)
def test_fw_f20_probes(
    path: str, checks: dict[str, Check], query: dict[str, list[str]], status: int, body: str | None
) -> None:
    """Any failure is 500 and always verbose; exclusion and single checks as in Kubernetes."""
    found = Probes().answer(path, checks, query)

    assert found[0] == status
    if body is not None:
        assert found[1] == body


def test_fw_f20_an_unknown_exclusion_is_pointed_out() -> None:
    """The verbose answer has a warning line."""
    _, body = Probes().answer("/readyz", {"a": GOOD}, {"exclude": ["zzz"], "verbose": [""]})

    assert "warn: some health checks cannot be excluded: no matches for ['zzz']" in body


def test_a_check_that_raises_has_failed() -> None:
    """A broken check is a failed check, not a broken probe."""

    def broken() -> str | None:
        raise RuntimeError("bug")

    assert Probes().answer("/healthz", {"a": broken}, {})[0] == 500
