"""The settings file as it was at start, to notice that it has changed since."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A file, and the digest of its content; None: the file was missing or unreadable."""

    path: Path
    digest: str | None

    @classmethod
    def at(cls, path: Path) -> Self:
        try:
            return cls(path, hashlib.sha256(path.read_bytes()).hexdigest())
        except (OSError, ValueError):
            return cls(path, None)

    def has_changed(self) -> bool:
        return SettingsFile.at(self.path).digest != self.digest
