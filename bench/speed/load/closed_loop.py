"""Load in a closed loop, by wrk: each connection sends its next request as soon as it has a response."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from speed.processes import LoadFailed, run_on_load_core
from speed.requests import Request

_SCRIPT: Final = Path(__file__).with_suffix(".lua")


@dataclass(frozen=True, slots=True)
class Loaded:
    """The successful requests and the duration."""

    requests: int
    duration_s: float

    @property
    def per_s(self) -> float:
        return self.requests / self.duration_s


def load(url: str, request: Request, *, connections: int, duration_s: int) -> Loaded:
    """Repeats a request for `duration_s`. Raises LoadFailed if more than one request in a thousand failed."""
    output = run_on_load_core(_command(url, request, connections, duration_s))
    found = json.loads(output.splitlines()[-1])
    failed, completed = int(found["failed"]), int(found["requests"])
    if failed * 1000 > completed or not completed:
        raise LoadFailed(f"{failed} of {completed} requests for {request.path} failed")
    return Loaded(completed - failed, found["duration_us"] / 1e6)


def _command(url: str, request: Request, connections: int, duration_s: int) -> list[str]:
    headers = [part for name, value in request.all_headers().items() for part in ("--header", f"{name}: {value}")]
    options = ["--threads", "1", "--connections", str(connections), "--duration", f"{duration_s}s"]
    command = ["wrk", *options, "--timeout", "30s", *headers, "--script", str(_SCRIPT), url + request.path]
    return [*command, "--", request.method, str(request.body_bytes)]
