"""The parameters of the keyring."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeyringPolicy:
    """`hold_s`: how long requests wait while no key is usable. `grace_s`: how long a replaced key is kept.

    `requests_probe`: whether requests test a candidate; otherwise the key manager sends a probe of its own.
    """

    hold_s: float = 5.0
    grace_s: float = 900.0
    requests_probe: bool = True
