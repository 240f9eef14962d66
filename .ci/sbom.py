"""Writes a CycloneDX 1.6 bill of materials of the program's Python packages, with their hashes.

python .ci/sbom.py VERSION requirements/run.txt requirements/extra-*.txt > nanonets-proxy.cdx.json

The packages of the first lock file are required, the others of the further ones are optional.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PINNED = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]+\])?==(?P<version>[^\s;\\]+)(?:\s*;\s*(?P<marker>[^\\]+?))?\s*\\?$"
)
_HASH = re.compile(r"\s+--hash=sha256:(?P<hash>[0-9a-f]{64})\s*\\?$")


def components(lock: str) -> Iterator[dict[str, Any]]:
    """Yields one component for each pinned package.

    Raises:
        ValueError: a line is neither a package nor a hash nor a comment.
    """
    current: dict[str, Any] | None = None
    for line in lock.splitlines():
        if pinned := _PINNED.fullmatch(line):
            if current is not None:
                yield current
            name, version = pinned["name"].lower(), pinned["version"]
            purl = f"pkg:pypi/{name}@{version}"
            current = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
            if pinned["marker"]:
                current["properties"] = [{"name": "pip:marker", "value": pinned["marker"]}]
            # The lock file lists the hashes of all files of a package: its wheels and its source distribution.
            current["externalReferences"] = [{"type": "distribution", "url": purl, "hashes": []}]
        elif (found := _HASH.fullmatch(line)) and current is not None:
            current["externalReferences"][0]["hashes"].append({"alg": "SHA-256", "content": found["hash"]})
        elif line.strip() and not line.lstrip().startswith("#"):
            raise ValueError(f"not a line of a lock file: {line!r}")
    if current is not None:
        yield current


def all_components(lock: str, extra_locks: list[str]) -> Iterator[dict[str, Any]]:
    """Yields the components of `lock`, and those that only `extra_locks` have, each once."""
    seen = set()
    for number, text in enumerate([lock, *extra_locks]):
        for component in components(text):
            if component["bom-ref"] not in seen:
                seen.add(component["bom-ref"])
                yield component | {"scope": "optional" if number else "required"}


def bill(version: str, lock: str, extra_locks: list[str]) -> dict[str, Any]:
    """Returns the document. Equal inputs give equal documents, so that a release is reproducible."""
    purl = f"pkg:pypi/nanonets-proxy@{version}"
    parts = list(all_components(lock, extra_locks))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": purl,
                "name": "nanonets-proxy",
                "version": version,
                "purl": purl,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": parts,
        "dependencies": [{"ref": purl, "dependsOn": [part["bom-ref"] for part in parts]}],
    }


if __name__ == "__main__":
    lock, *extra_locks = [Path(path).read_text() for path in sys.argv[2:]]
    json.dump(bill(sys.argv[1], lock, extra_locks), sys.stdout, indent=2)
    sys.stdout.write("\n")
