"""Times each view of a usage ledger with ten million attempts over 400 days.

PYTHONPATH=bench python -m usage_views [FILE]     makes FILE first, if it is missing (minutes, about 1 GB)
"""

import random
import sys
import time
from itertools import product
from pathlib import Path

from nanonets_proxy.cli.ledger.usage import VIEWS, read_view
from nanonets_proxy.core.api.routes import TEMPLATES
from nanonets_proxy.telemetry.ledger.batch import Batch
from nanonets_proxy.telemetry.ledger.database import LedgerDatabase

ATTEMPTS = 10_000_000
DAYS = 400
NOW_H = 498_000
HOURS = DAYS * 24
HOURS_PER_BATCH = 96
RUNS = 5
CALLERS, ROUTES = 40, 12
STATUSES = {"2xx": 90, "429": 6, "4xx": 3, "5xx": 1}


def make(path: Path) -> None:
    """Writes the attempts, a few days at a time. Few callers send most of them."""
    rng = random.Random(1)  # noqa: S311  # no secret
    series = list(
        product(
            ["", "staging"], [f"team-{number}" for number in range(CALLERS)], ["GET"], TEMPLATES[-ROUTES:], STATUSES
        )
    )
    weights = [
        (5 if environment == "" else 1) / (1 + int(caller.removeprefix("team-"))) * STATUSES[status]
        for environment, caller, _, _, status in series
    ]
    database = LedgerDatabase(path, 10_000, ATTEMPTS)
    for first in range(NOW_H - HOURS, NOW_H, HOURS_PER_BATCH):
        batch = Batch()
        for hour in range(first, first + HOURS_PER_BATCH):
            for number, own in enumerate(rng.choices(series, weights, k=ATTEMPTS // HOURS + 1)):
                batch.rows.setdefault(own, []).extend((hour * 3600 + number * 3, number, 1, 1000, 2000, 1))
        database.write(batch)
    database.close()


def main() -> None:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "usage.db")
    if not path.exists():
        began_s = time.process_time()
        make(path)
        print(f"{ATTEMPTS:,} attempts written in {time.process_time() - began_s:.0f} s")
    print(f"{path.stat().st_size / 2**20:.0f} MiB\n")
    ranges = {"400 days": HOURS, "90 days and 5 hours": 90 * 24 + 5, "7 days": 7 * 24}
    print(f"{'view':12}", *(f"{name:>22}" for name in ranges))
    for view in VIEWS:
        figures = []
        for hours in ranges.values():
            for environment in (None, "staging"):
                times = []
                for _ in range(RUNS):
                    began_s = time.process_time()
                    read_view(path, view, NOW_H - hours - 3, NOW_H - 3, environment)
                    times.append(time.process_time() - began_s)
                figures.append(sorted(times)[RUNS // 2])
        pairs = zip(figures[::2], figures[1::2], strict=True)
        print(f"{view:12}", *(f"{1000 * every:9.1f} {1000 * one:6.1f} ms    " for every, one in pairs))
    print("\nMedians. In each pair: all environments, then one of two.")


if __name__ == "__main__":
    main()
