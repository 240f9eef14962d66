"""The stages of a round. Each stage starts a peer again, in front of the stage's upstream."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from speed.upstream import Origin, Upstreams


def _defaults(_home: Path) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Stage:
    """`environment` returns this proxy's variables, and may write files below its argument, a directory."""

    name: str
    upstream: Callable[[Upstreams], Origin]
    warm: bool = True
    """Whether the peer serves a second of load before the measurements."""
    environment: Callable[[Path], Mapping[str, str]] = _defaults


def _many_waiting(_home: Path) -> Mapping[str, str]:
    """Lets all connections of the largest count wait at the same time. The proxy sees them as one caller."""
    return {"NANONETS_PROXY_MAX_WAITING": "11000", "NANONETS_PROXY_MAX_WAITING_PER_CALLER": "11000"}


def _one_predict_in_half_an_hour(home: Path) -> Mapping[str, str]:
    """Limits a scope so that its callers wait throughout the benchmark."""
    return {
        **_many_waiting(home),
        "NANONETS_PROXY_LIMITS": "v2:predict:busy 1/30m",
        "NANONETS_PROXY_MAX_WAIT": "365d",
    }


EXTRAS: Final = ("boto3", "botocore", "hvac", "requests")
"""The packages of the extras; hvac requires `requests`."""


def _log_imports(home: Path) -> Mapping[str, str]:
    """Makes Python log its imports, and provides empty packages in place of the extras."""
    for name in EXTRAS:
        (home / "extras" / name).mkdir(parents=True, exist_ok=True)
        (home / "extras" / name / "__init__.py").touch()
    return {"PYTHONPROFILEIMPORTTIME": "1", "PYTHONPATH": str(home / "extras")}


START: Final = Stage("start", lambda upstreams: upstreams.plain, warm=False)
IMPORTS: Final = Stage("imports", lambda upstreams: upstreams.plain, warm=False, environment=_log_imports)
PLAIN: Final = Stage("plain", lambda upstreams: upstreams.plain)
TLS: Final = Stage("TLS", lambda upstreams: upstreams.tls)
BULK: Final = Stage("bulk", lambda upstreams: upstreams.bulk, warm=False)
IDLE: Final = Stage("idle", lambda upstreams: upstreams.plain)
GROWTH: Final = Stage("growth", lambda upstreams: upstreams.plain, environment=_many_waiting)
LIMITED: Final = Stage("limited", lambda upstreams: upstreams.plain, environment=_one_predict_in_half_an_hour)

STAGES: Final = (START, IMPORTS, PLAIN, TLS, BULK, IDLE, GROWTH, LIMITED)
