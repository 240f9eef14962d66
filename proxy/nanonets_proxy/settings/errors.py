"""The error that all settings code raises, and the hint for a misspelled name."""

from collections.abc import Iterable
from difflib import get_close_matches


class SettingsError(Exception):
    """The settings cannot be used. `problems` holds one sentence for each fault, and `str` all of them.

    No sentence shows a secret.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


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
