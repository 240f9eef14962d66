"""Checks a bill of materials against CycloneDX's own JSON schema.

python .ci/check_sbom.py FILE

Exits with 1 and the schema's complaint if the file does not follow the schema.
"""

import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


def main(path: str) -> None:
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(Path(path).read_text())
    if error is not None:
        sys.exit(f"{path} does not follow CycloneDX 1.6: {error}")


if __name__ == "__main__":
    main(sys.argv[1])
