"""Load in a closed loop, by wrk: each connection asks again as soon as it has its answer."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from speed.processes import run_on_load_core
from speed.requests import Request

_SCRIPT: Final = Path(__file__).with_suffix(".lua")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of it: answers of status 2xx or 3xx, and everything else."""

    requests: int
    failed: int
    duration_s: float

    @property
    def per_s(self) -> float:
        return self.requests / self.duration_s


def load(origin: str, request: Request, *, connections: int, duration_s: float) -> Loaded:
    """Asks `origin` for `duration_s`, which ends up as whole seconds."""
    headers = [part for name, value in request.all_headers().items() for part in ("--header", f"{name}: {value}")]
    options = ["--threads", "1", "--connections", str(connections), "--duration", f"{duration_s:.0f}s"]
    command = ["wrk", *options, "--timeout", "10s", *headers, "--script", str(_SCRIPT), origin + request.path]
    said = run_on_load_core([*command, "--", request.method, str(request.body_bytes)])
    found = json.loads(said.splitlines()[-1])
    failed = int(found["failed"])
    return Loaded(int(found["requests"]) - failed, failed, found["duration_us"] / 1e6)
