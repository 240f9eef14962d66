"""The samples of all rounds: statistics, and the JSON file."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any, Final, Self

_DIGITS: Final = 4


def quantile(figures: Sequence[float], share: float) -> float:
    """Returns the smallest figure that is at least as large as `share` of the figures."""
    return sorted(figures)[max(0, math.ceil(share * len(figures)) - 1)]


@dataclass(slots=True)
class Samples:
    """One figure per round, by case, peer and quantity. A failed measure has a reason instead."""

    figures: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    failures: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    """Reasons by case, peer and number of the round. The first round is "1"."""

    def add(self, case: str, peer: str, found: Mapping[str, float]) -> None:
        quantities = self.figures.setdefault(case, {}).setdefault(peer, {})
        for quantity, figure in found.items():
            quantities.setdefault(quantity, []).append(float(f"{figure:.{_DIGITS}g}"))

    def fail(self, case: str, peer: str, round_number: int, reason: str) -> None:
        self.failures.setdefault(case, {}).setdefault(peer, {})[str(round_number)] = reason

    def failed(self, case: str, peers: Collection[str]) -> bool:
        """Returns whether the case failed for one of the peers, in any round."""
        return not self.failures.get(case, {}).keys().isdisjoint(peers)

    def all(self, case: str, peer: str, quantity: str) -> list[float]:
        return self.figures.get(case, {}).get(peer, {}).get(quantity, [])

    def by_round(self, case: str, peer: str, quantity: str) -> dict[int, float]:
        """Returns the figures by number of the round, without the failed rounds."""
        failed = self.failures.get(case, {}).get(peer, {})
        rounds = (number for number in count(1) if str(number) not in failed)
        return dict(zip(rounds, self.all(case, peer, quantity), strict=False))

    def median(self, case: str, peer: str, quantity: str) -> float | None:
        found = self.all(case, peer, quantity)
        return median(found) if found else None

    def points(self, case: str, peer: str) -> dict[int, float]:
        """Returns the medians of the quantities whose names are numbers, in numeric order."""
        numbers = (int(name) for name in self.figures.get(case, {}).get(peer, {}) if name.isdigit())
        return {number: median(self.all(case, peer, str(number))) for number in sorted(numbers)}


@dataclass(frozen=True, slots=True)
class Results:
    """The results of a run. `facts` are texts by name: date, machine, software."""

    facts: Mapping[str, str]
    versions: Mapping[str, str]
    rounds: int
    samples: Samples

    def write(self, file: Path) -> None:
        kept = {
            "facts": self.facts,
            "versions": self.versions,
            "rounds": self.rounds,
            "failures": self.samples.failures,
            "figures": self.samples.figures,
        }
        file.write_text(_lists_on_a_line(json.dumps(kept, indent=1)) + "\n")

    @classmethod
    def read(cls, file: Path) -> Self:
        kept: dict[str, Any] = json.loads(file.read_text())
        return cls(kept["facts"], kept["versions"], kept["rounds"], Samples(kept["figures"], kept["failures"]))


def _lists_on_a_line(text: str) -> str:
    """Joins each list, which has only numbers, into one line of the JSON text."""
    lines: list[str] = []
    within = False
    for line in text.splitlines():
        if within:
            lines[-1] += line.strip() + (" " if line.endswith(",") else "")
        else:
            lines.append(line)
        within = line.endswith("[") or (within and not line.strip().startswith("]"))
    return "\n".join(lines)
