"""Claims that ended while it was not known whether a leader counts them. The next hello to that leader names them.

A leader counts a claim from its own grant, or from the hello that names it among those in use. If it does not hear
of the end, it must not count the request again with the log, or at all if the upstream refused it.
"""

from typing import Any, Final

from nanonets_proxy.admission.fleet.homes.claim import OwnClaim

_MOST: Final = 1000


class InDoubt:
    """Remembers the latest `_MOST` of each kind, until a leader welcomes this replica."""

    def __init__(self) -> None:
        self._refused: dict[int, int] = {}  # the epochs of claims, by number
        self._logged: dict[int, tuple[int, int]] = {}  # the epochs and numbers of claims, by number in the log

    def note_refused(self, claim: OwnClaim, epoch: int) -> None:
        """Notes a claim whose request does not count. The home of now is that of `epoch`."""
        if claim.told_epoch or claim.epoch != epoch:
            _note(self._refused, claim.number, claim.told_epoch or claim.epoch)

    def note_logged(self, claim: OwnClaim, number: int) -> None:
        """Notes a claim whose request is in the log under this number."""
        if claim.told_epoch:
            _note(self._logged, number, (claim.told_epoch, claim.number))

    def clear(self) -> None:
        """Forgets all: a leader knows them."""
        self._refused.clear()
        self._logged.clear()

    def refused(self, epoch: int) -> list[int]:
        """Returns the claims that the leader of this epoch may count, and must not."""
        return [number for number, of_epoch in self._refused.items() if of_epoch == epoch]

    def logged(self, epoch: int) -> list[tuple[int, int]]:
        """Returns (number in the log, claim) of those that the leader of this epoch may count already."""
        return [(number, claim) for number, (of_epoch, claim) in self._logged.items() if of_epoch == epoch]


def _note(kept: dict[int, Any], number: int, value: object) -> None:
    kept[number] = value
    if len(kept) > _MOST:
        del kept[next(iter(kept))]
