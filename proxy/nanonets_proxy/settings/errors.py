"""The error that all settings code raises, and the hint for a misspelled name."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from nanonets_proxy.core.keys.key_mistakes import NOT_SHOWN, without_keys

_SHORTEST_SECRET: Final = 8  # a shorter text may be a usual word


class SettingsError(Exception):
    """The settings cannot be used. `problems` holds one sentence for each fault, and `str` all of them.

    No sentence shows a secret, nor a word that may be a key: a key is sometimes given in place of another value.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = tuple(map(without_keys, problems))
        super().__init__("\n".join(self.problems))

    def without(self, secrets: Iterable[str]) -> "SettingsError":
        """Returns an equal error that shows none of the secrets, whatever they look like."""
        problems = self.problems
        for secret in filter(lambda secret: len(secret) >= _SHORTEST_SECRET, secrets):
            problems = tuple(problem.replace(secret, NOT_SHOWN) for problem in problems)
        return SettingsError(*problems)


def did_you_mean(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Returns the end of a sentence about an unknown name: the nearest known name, or where to find them all.

    A `prefix` of all names is not compared: with it, any two names would be alike.
    """
    known = {known.removeprefix(prefix): known for known in names}
    nearest = get_close_matches(name.removeprefix(prefix), known, n=1, cutoff=0.5)
    return (
        f"did you mean {known[nearest[0]]}?"
        if nearest
        else "`nanonets-proxy config --reference` lists all settings"
    )
