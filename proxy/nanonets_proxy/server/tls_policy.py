"""The files of TLS for callers."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ListenerTlsPolicy:
    """PEM files. With `client_ca_file`, a caller must present a certificate of these authorities.

    If not `required`, a caller may present none.
    """

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None
    required: bool = True
