"""Builds the image once for all system tests."""

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanonets_proxy import __version__
from system.podman import IMAGE, podman, run

_BUILD_TIMEOUT_S = 300.0


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """Builds the Dockerfile's image without cached layers, so that all locked packages must still be available."""
    podman(
        "build",
        "--format=docker",  # the OCI format does not support HEALTHCHECK
        "--layers=false",
        "--network=host",
        *(f"--secret=id=ca,src={path}" for path in _certificates()),
        f"--build-arg=VERSION={__version__}",
        f"--tag={IMAGE}",
        ".",
        timeout_s=_BUILD_TIMEOUT_S,
    )
    yield IMAGE
    run("podman", "rmi", "--force", IMAGE)


def _certificates() -> list[str]:
    """Returns the CA file that pip trusts on this machine, if any; the network may need it."""
    files = (os.environ.get("PIP_CERT"), os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile)
    return [path for path in files if path and Path(path).is_file()][:1]
