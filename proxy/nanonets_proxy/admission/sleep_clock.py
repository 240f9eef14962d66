"""How long the machine has slept: the event loop's clock stands still then, but the upstream's limits go on."""

import time

# Linux's CLOCK_MONOTONIC, which asyncio uses, stands still in a sleep; CLOCK_BOOTTIME does not (clock_gettime(2)).
# On macOS, time.monotonic stands still, and the system's CLOCK_MONOTONIC does not.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_s() -> float:
    """Returns the time since a fixed instant, with sleeps of the machine. The wall clock has no influence."""
    return time.clock_gettime(_CLOCK)


def slept_s() -> float:
    """Returns how long the machine has slept since a fixed instant. The wall clock has no influence."""
    return steady_s() - time.monotonic()
