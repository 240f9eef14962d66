"""Random faults on both sides of the real proxy. SOAK_S sets the seconds; SOAK_SEED repeats a run's faults."""

import os
from pathlib import Path

from soak.run import LEAST_WHOLE_PER_S, soak

_SECONDS = float(os.environ.get("SOAK_S", "8"))
_SEED = int(os.environ.get("SOAK_SEED", "1"))
# The allocator keeps memory of the peak. A leak of 1 KB per request would be far more.
_MAY_GROW_BYTES = 48 * 2**20


async def test_responses_are_complete_or_clean_errors_and_nothing_leaks(
    tmp_path: Path,
) -> None:
    outcome = await soak(_SECONDS, _SEED, tmp_path)
    print(_SEED, outcome)  # noqa: T201 - pytest -s shows it, and so does a failure
    assert outcome.wrong == []
    assert outcome.posts_sent_twice == []
    assert outcome.strangers == []
    assert outcome.whole > LEAST_WHOLE_PER_S * _SECONDS
    assert outcome.clean.total() > 0
    assert outcome.spool_files == 0
    assert not outcome.descriptors
    early_bytes, late_bytes = outcome.resident_bytes
    assert late_bytes - early_bytes < _MAY_GROW_BYTES
