"""What the replicas of a fleet have counted of each caller's requests of a day (docs/fleet-protocol.md).

| state | a caller's limit at this replica |
|---|---|
| together (`go_together`) | its daily budget, less what the other replicas have counted |
| alone (`go_alone`) | what it had used here by then, and this replica's part of what was left |

Each replica tells its own counts, each with a growing stamp. The latest one is true, however often it is told, and
by whom. So neither a lost message nor another leader loses a count or doubles it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

from nanonets_proxy.core.usage.rollups import DAY_S

_MAX_DAYS: Final = 3  # a clock that jumps back finds its day again
_MAX_ENTRIES: Final = 20_000  # of one day
_AGAIN_S: Final = 60.0

Entry: TypeAlias = tuple[str, int, str, int, int]
"""Replica, day since 1970, hash of the caller's name, requests, stamp."""
Key: TypeAlias = tuple[int, str]
"""Day since 1970, hash of the caller's name."""


class SharedCounts:
    """The counts of all replicas. `DailyBudget` asks it, and tells it those of this replica."""

    def __init__(self, replica: str, hashed: Callable[[str], str]) -> None:
        """`hashed` returns the name of a caller as the other replicas know it."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when this replica has counted a request."""
        self.version = 0
        """Grows with each change."""
        self._replica = replica
        self._hashed = hashed
        self._days: dict[int, dict[tuple[str, str], tuple[int, int]]] = {}
        self._others: Counter[Key] = Counter()
        self._own: dict[Key, int] = {}
        self._stamp = 0
        self._untold: set[Key] = set()
        self._restored: dict[Key, int] = {}
        self._known: dict[Key, int] = {}  # of the restored ones, those that other replicas remember
        self._replicas = 0  # while alone: how many share what is left
        self._at_loss: dict[Key, int] = {}
        """This replica's counts when it was alone, less what an earlier process had used since then."""
        self._unheard: dict[tuple[str, int, str], int] = {}  # with their stamps

    # --- the daily budget of this replica -----------------------------------------------------------

    def restore(self, day: int, caller: str, count: int) -> None:
        """Notes what the usage ledger had counted at start. Until `meet`, no other replica knows of it."""
        key = day, self._hashed(caller)
        self._restored[key] = self._own[key] = count

    def counted(self, day: int, caller: str, count: int) -> None:
        """Notes this replica's count, the restored requests included."""
        key = day, self._hashed(caller)
        self._own[key] = count - self._known.get(key, 0)
        self._untold.add(key)
        self.on_change()

    def limit_here(self, day: int, caller: str, limit: int) -> int:
        """Returns how large this replica's count may become, the restored requests included."""
        key = day, self._hashed(caller)
        known = self._known.get(key, 0)
        if not self._replicas:
            return limit - self._others[key] + known
        own = self._at_loss.get(key, 0)
        left = max(0, limit - own - self._others[key])
        # Rounded up, or nobody could use the last requests of a budget: at most one request more for each replica.
        return known + own - (-left // self._replicas)

    def again_in_s(self, day: int, caller: str, limit: int, now_s: float) -> float:
        """Returns when a caller that has reached `limit_here` may try again, in seconds."""
        key = day, self._hashed(caller)
        next_day_s = (day + 1) * DAY_S - now_s
        if self._replicas and self._own.get(key, 0) + self._others[key] < limit:
            return min(_AGAIN_S, next_day_s)  # the rest may be free once the replicas are together
        return next_day_s

    # --- the fleet ----------------------------------------------------------------------------------

    @property
    def is_alone(self) -> bool:
        """Whether this replica has only a part of what is left."""
        return self._replicas > 1

    def go_alone(self, replicas: int) -> None:
        """From now on, uses one of `replicas` parts of what is left. While alone, only their number changes."""
        if not self._replicas:
            self._at_loss = dict(self._own)
        self._replicas = replicas

    def used_alone(self) -> list[tuple[int, str, int]]:
        """Returns what it has used of its parts since it is alone, as (day, hash of the caller, requests)."""
        if not self._replicas:
            return []
        keys = self._own.keys() | self._at_loss.keys()
        return [(*key, max(0, self._own.get(key, 0) - self._at_loss.get(key, 0))) for key in keys]

    def go_on_alone(self, replicas: int, used: Iterable[tuple[int, str, int]]) -> None:
        """Goes alone with the parts of an earlier process, which has `used` so much of them.

        Raises ValueError or TypeError if that is malformed.
        """
        self.go_alone(replicas)
        for day, caller, count in used:
            key = _number(day), str(caller)
            self._at_loss[key] = self._own.get(key, 0) - _number(count)

    def go_together(self) -> None:
        """From now on, hears what the others count. Tells them all counts of this replica."""
        self._replicas = 0
        self._at_loss.clear()
        self._untold.update(self._own)

    def meet(self) -> None:
        """Leaves out the restored requests that the fleet remembers: an earlier process has told them."""
        for key, count in self._restored.items():
            self._known[key] = min(count, self._others[key])
            self._own[key] -= self._known[key]
        self._restored.clear()

    def tell(self, today: int) -> list[Entry]:
        """Returns this replica's counts that have changed since the last call. `today` is the present day."""
        untold, self._untold = self._untold, set()
        self._stamp += 1
        entries = [(self._replica, day, caller, self._own[day, caller], self._stamp) for day, caller in untold]
        self._note(entries, today)
        return entries

    def compare(self) -> None:
        """Begins to note which of other replicas' counts are heard."""
        self._unheard = {entry[:3]: entry[4] for entry in self.everything() if entry[0] != self._replica}

    def unheard(self) -> list[Entry]:
        """Returns other replicas' counts that were not heard since `compare`, or only earlier ones."""
        unheard, self._unheard = self._unheard, {}
        return [entry for entry in self.everything() if entry[:3] in unheard]

    def everything(self) -> list[Entry]:
        """Returns the counts of all replicas, as far as they are told."""
        return [
            (replica, day, caller, count, stamp)
            for day, counts in self._days.items()
            for (replica, caller), (count, stamp) in counts.items()
        ]

    def hear(self, entries: Iterable[Entry], today: int) -> list[Entry]:
        """Notes other replicas' counts. Ignores those of this one. `today` is the present day.

        Returns what was not known. Raises ValueError or TypeError if they are malformed.
        """
        heard = [(str(of), _number(day), str(c), _number(n), _number(stamp)) for of, day, c, n, stamp in entries]
        for entry in heard:
            if self._unheard.get(entry[:3], entry[4] + 1) <= entry[4]:
                del self._unheard[entry[:3]]
        return self._note((entry for entry in heard if entry[0] != self._replica), today)

    def _note(self, entries: Iterable[Entry], today: int) -> list[Entry]:
        new: list[Entry] = []
        for replica, day, caller, count, stamp in entries:
            if (counts := self._days.get(day)) is None and (counts := self._begin_day(day, today)) is None:
                continue
            old_count, old_stamp = counts.get((replica, caller), (0, -1))
            if stamp <= old_stamp or (old_stamp < 0 and len(counts) >= _MAX_ENTRIES):
                continue
            counts[replica, caller] = count, stamp
            new.append((replica, day, caller, count, stamp))
            self.version += 1
            if replica != self._replica:
                self._others[day, caller] += count - old_count
        return new

    def _begin_day(self, day: int, today: int) -> dict[tuple[str, str], tuple[int, int]] | None:
        """Returns the empty counts of a new day; None if too many days are nearer to `today`.

        Otherwise forgets the day that is furthest from `today` if there are too many. So a replica with a wrong
        clock, whose days may be years ahead, does not end the present day.
        """
        if len(self._days) >= _MAX_DAYS:
            furthest = max(*self._days, day, key=lambda each: (abs(each - today), -each))
            if furthest == day:
                return None
            del self._days[furthest]
            for mapping in (self._others, self._own, self._known, self._restored, self._at_loss):
                _drop_day(mapping, furthest)
            self._untold = {key for key in self._untold if key[0] != furthest}
        counts = self._days[day] = {}
        return counts


def _drop_day(mapping: Mapping[Key, int], day: int) -> None:
    assert isinstance(mapping, dict)
    for key in [key for key in mapping if key[0] == day]:
        del mapping[key]


def _number(value: object) -> int:
    if isinstance(value, int) and 0 <= value < 2**53:
        return value
    raise ValueError(f"{value!r} is no count")
