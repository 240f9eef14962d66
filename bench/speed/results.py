"""Figures of all rounds: kept, read again, and what is made of them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final, Self

_DIGITS: Final = 4


def quantile(figures: Sequence[float], share: float) -> float:
    """The smallest figure that `share` of them do not exceed."""
    return sorted(figures)[max(0, math.ceil(share * len(figures)) - 1)]


@dataclass(slots=True)
class Samples:
    """By case, peer and quantity: one figure a round."""

    figures: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)

    def add(self, case: str, peer: str, found: Mapping[str, float]) -> None:
        of_peer = self.figures.setdefault(case, {}).setdefault(peer, {})
        for quantity, figure in found.items():
            of_peer.setdefault(quantity, []).append(float(f"{figure:.{_DIGITS}g}"))

    def all(self, case: str, peer: str, quantity: str) -> list[float]:
        return self.figures.get(case, {}).get(peer, {}).get(quantity, [])

    def median(self, case: str, peer: str, quantity: str) -> float | None:
        found = self.all(case, peer, quantity)
        return median(found) if found else None

    def points(self, case: str, peer: str) -> dict[int, float]:
        """Medians of the quantities that are numbers, in their order."""
        numbers = (int(name) for name in self.figures.get(case, {}).get(peer, {}) if name.isdigit())
        return {number: median(self.all(case, peer, str(number))) for number in sorted(numbers)}


@dataclass(frozen=True, slots=True)
class Results:
    """`facts` say when, where and with what: texts by name."""

    facts: Mapping[str, str]
    versions: Mapping[str, str]
    rounds: int
    samples: Samples

    def write(self, file: Path) -> None:
        kept = {
            "facts": self.facts,
            "versions": self.versions,
            "rounds": self.rounds,
            "figures": self.samples.figures,
        }
        file.write_text(_lists_on_a_line(json.dumps(kept, indent=1)) + "\n")

    @classmethod
    def read(cls, file: Path) -> Self:
        kept: dict[str, Any] = json.loads(file.read_text())
        return cls(kept["facts"], kept["versions"], kept["rounds"], Samples(kept["figures"]))


def _lists_on_a_line(text: str) -> str:
    """JSON without line breaks in its lists, which hold numbers only."""
    lines: list[str] = []
    within = False
    for line in text.splitlines():
        if within:
            lines[-1] += line.strip() + (" " if line.endswith(",") else "")
        else:
            lines.append(line)
        within = line.endswith("[") or (within and not line.strip().startswith("]"))
    return "\n".join(lines)
