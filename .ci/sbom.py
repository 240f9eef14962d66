"""Writes a CycloneDX 1.6 bill of materials of what `requirements/run.txt` locks, with the locked hashes.

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
    """One component for each pinned package. ValueError: a line that is neither package, hash nor comment."""
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
            # The lock lists the hashes of all its files, so they belong to the package's distributions.
            current["externalReferences"] = [{"type": "distribution", "url": purl, "hashes": []}]
        elif (found := _HASH.fullmatch(line)) and current is not None:
            current["externalReferences"][0]["hashes"].append({"alg": "SHA-256", "content": found["hash"]})
        elif line.strip() and not line.lstrip().startswith("#"):
            raise ValueError(f"no line of a lock: {line!r}")
    if current is not None:
        yield current


def bill(version: str, lock: str) -> dict[str, Any]:
    """The document; the same for the same input, so that a release can be made again."""
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
