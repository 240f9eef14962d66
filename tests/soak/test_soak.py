"""Random faults on both sides of the real proxy. SOAK_S: for how many seconds; SOAK_SEED: the same faults again."""

import os
from pathlib import Path

from soak.run import soak

_SECONDS = float(os.environ.get("SOAK_S", "8"))
_SEED = int(os.environ.get("SOAK_SEED", "1"))
# What the allocator keeps of the largest moment; a leak of one kilobyte a request would be far more.
_MAY_GROW_BYTES = 48 * 2**20


async def test_every_answer_is_whole_and_its_own_or_a_clean_error_and_nothing_is_left(tmp_path: Path) -> None:
    outcome = await soak(_SECONDS, _SEED, tmp_path)
    print(_SEED, outcome)  # noqa: T201 - shown by -s, and where it fails
    assert outcome.wrong == []
    assert outcome.posts_sent_twice == []
    assert outcome.strangers == []
    assert outcome.whole > 20 * _SECONDS
    assert outcome.clean.total() > 0
    assert outcome.spool_files == 0
    assert not outcome.descriptors
    early_bytes, late_bytes = outcome.resident_bytes
    assert late_bytes - early_bytes < _MAY_GROW_BYTES
