"""The parameters of the connections to the upstream, and of the copies of request bodies."""

from dataclasses import dataclass
from pathlib import Path

from nanonets_proxy.core.net.addresses import EgressProxy, Origin


@dataclass(frozen=True, slots=True)
class DialPolicy:
    """How to reach the upstream. `idle_timeout_s` applies to the connections' waits for body bytes.

    `may_be_private`: the upstream's name may resolve to private addresses. `pins`: digests of the accepted public
    keys, empty for any key. `ignored_variable`: the variable that names an egress proxy while the setting is empty.
    """

    origin: Origin
    connect_timeout_s: float
    idle_timeout_s: float
    ca_file: Path | None = None
    egress_proxy: EgressProxy | None = None
    may_be_private: bool = False
    pins: tuple[bytes, ...] = ()
    ignored_variable: str = ""


@dataclass(frozen=True, slots=True)
class BodyPolicy:
    """Limits of the copies: memory for one request, memory and disk for all, the largest body, files for all."""

    memory_bytes: int
    memory_total_bytes: int
    spool_dir: Path
    spool_total_bytes: int
    replay_limit_bytes: int
    spool_files: int
