"""Writes a CycloneDX 1.6 bill of materials of the packages in `requirements/run.txt`, with their hashes.

python .ci/sbom.py VERSION < requirements/run.txt > nanonets-proxy.cdx.json
"""

import json
import re
import sys
from collections.abc import Iterator
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


def bill(version: str, lock: str) -> dict[str, Any]:
    """Returns the document. Equal inputs give equal documents, so that a release is reproducible."""
    purl = f"pkg:pypi/nanonets-proxy@{version}"
    parts = list(components(lock))
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
    json.dump(bill(sys.argv[1], sys.stdin.read()), sys.stdout, indent=2)
    sys.stdout.write("\n")
