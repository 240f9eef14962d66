"""Stages of a round: each starts a peer anew, in front of the upstream that it needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from speed.upstream import Origin, Upstreams


def _defaults(_home: Path) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Stage:
    """`environment` is ours besides the defaults; it may write files below the directory that it gets."""

    name: str
    upstream: Callable[[Upstreams], Origin]
    warm: bool = True
    """Whether it has served a second of load before anything is measured."""
    environment: Callable[[Path], Mapping[str, str]] = _defaults


def _one_predict_in_half_an_hour(_home: Path) -> Mapping[str, str]:
    """A scope in which callers wait for as long as the benchmark likes."""
    return {
        "NANONETS_PROXY_LIMITS": "v2:predict:busy 1/30m",
        "NANONETS_PROXY_MAX_WAIT": "365d",
        "NANONETS_PROXY_MAX_WAITING": "11000",
    }


EXTRAS: Final = ("boto3", "botocore", "hvac", "requests")
"""What the extras bring; `requests` is what hvac needs."""


def _imports_told(home: Path) -> Mapping[str, str]:
    """Python tells what it imports; stand-ins see to it that the extras could be."""
    for name in EXTRAS:
        (home / "extras" / name).mkdir(parents=True, exist_ok=True)
        (home / "extras" / name / "__init__.py").touch()
    return {"PYTHONPROFILEIMPORTTIME": "1", "PYTHONPATH": str(home / "extras")}


START: Final = Stage("start", lambda upstreams: upstreams.plain, warm=False)
IMPORTS: Final = Stage("imports", lambda upstreams: upstreams.plain, warm=False, environment=_imports_told)
PLAIN: Final = Stage("plain", lambda upstreams: upstreams.plain)
TLS: Final = Stage("TLS", lambda upstreams: upstreams.tls)
BULK: Final = Stage("bulk", lambda upstreams: upstreams.bulk, warm=False)
IDLE: Final = Stage("idle", lambda upstreams: upstreams.plain)
GROWTH: Final = Stage("growth", lambda upstreams: upstreams.plain)
LIMITED: Final = Stage("limited", lambda upstreams: upstreams.plain, environment=_one_predict_in_half_an_hour)

STAGES: Final = (START, IMPORTS, PLAIN, TLS, BULK, IDLE, GROWTH, LIMITED)
