"""What to do with the fields of a header section: found once for a list of names, done by one formatting for each.

Callers send the same names in the same order and spelling again and again, and so does the upstream.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# A plan is kept for so many lists of names, none of which is longer, or has more octets.
_MOST_PLANS = 256
_MOST_NAMES = 64
_MOST_NAME_BYTES = 2048


@dataclass(frozen=True, slots=True)
class HeaderPlan:
    """For fields of certain names, in their order."""

    template: bytes
    """The lines that pass, each with its CR LF. Takes the values of all fields, and writes nothing of those that do
    not pass."""
    places: tuple[int | None, ...]
    """Where each of the `known` names stands, at last if more than once; None: nowhere."""
    passing: Sequence[bool]
    """Which of the fields pass."""
    special: Sequence[tuple[int, bytes]]
    """Where those stand that are looked at, and all but the last of a known name; their names in lower case."""


class HeaderPlans(dict[tuple[bytes, ...], HeaderPlan]):
    """The plan of each list of names, made where it is not known yet. `known` names have their places in it, and
    `looked_at` ones are special. `dropped` names, and those that begin with `dropped_prefix`, do not pass."""

    def __init__(
        self,
        known: Sequence[bytes],
        looked_at: frozenset[bytes],
        dropped: frozenset[bytes],
        dropped_prefix: bytes = b"",
    ) -> None:
        super().__init__()
        self._known = known
        self._looked_at = looked_at
        self._dropped = dropped
        self._dropped_prefix = dropped_prefix

    def __missing__(self, names: tuple[bytes, ...]) -> HeaderPlan:
        plan = self._make(names)
        is_usual = len(names) <= _MOST_NAMES and sum(map(len, names)) <= _MOST_NAME_BYTES
        if is_usual and len(self) < _MOST_PLANS:
            self[names] = plan
        return plan

    def _make(self, names: tuple[bytes, ...]) -> HeaderPlan:
        lower_names = [name.lower() for name in names]
        last = {lower: at for at, lower in enumerate(lower_names)}
        special = []
        passing = []
        template = b""
        for at, (name, lower) in enumerate(zip(names, lower_names, strict=True)):
            if lower in self._looked_at or (lower in self._known and at != last[lower]):
                special.append((at, lower))
            is_dropped = lower in self._dropped or bool(
                self._dropped_prefix and lower.startswith(self._dropped_prefix)
            )
            passing.append(not is_dropped)
            template += b"%.0b" if is_dropped else name.replace(b"%", b"%%") + b": %b\r\n"
        return HeaderPlan(template, tuple(last.get(name) for name in self._known), passing, special)
