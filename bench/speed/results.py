"""Figures of all rounds, and what is made of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median


@dataclass(slots=True)
class Samples:
    """By case, peer and quantity: one figure a round."""

    figures: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)

    def add(self, case: str, peer: str, found: Mapping[str, float]) -> None:
        of_peer = self.figures.setdefault(case, {}).setdefault(peer, {})
        for quantity, figure in found.items():
            of_peer.setdefault(quantity, []).append(figure)

    def median(self, case: str, peer: str, quantity: str) -> float | None:
        found = self.figures.get(case, {}).get(peer, {}).get(quantity)
        return median(found) if found else None
