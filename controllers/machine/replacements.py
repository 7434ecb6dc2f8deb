"""How many Machines of one name were given up in a row.

In: Machines that are given up because their node never became usable, and Machines whose node did. Out: the
count, which bounds what a broken image or a missing device plugin may cost. It is this process's own: a restarted
operator gives it another try.
"""

from __future__ import annotations


class ReplacementBook:
    """Counts by name; names of a Workspace's Machines are the same again for each replacement."""

    def __init__(self) -> None:
        self._given_up: dict[str, set[str]] = {}

    def __repr__(self) -> str:
        return f"<ReplacementBook names={len(self._given_up)}>"

    def of(self, name: str) -> int:
        """Machines of this name that were given up since the last one that worked."""
        return len(self._given_up.get(name, ()))

    def given_up(self, name: str, uid: str) -> None:
        """This Machine is deleted; telling it twice counts once."""
        self._given_up.setdefault(name, set()).add(uid)

    def works(self, name: str) -> None:
        """The Machine of this name has a usable node."""
        self._given_up.pop(name, None)
