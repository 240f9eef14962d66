"""The image, built once for all system tests."""

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanonets_proxy import __version__
from support.podman import IMAGE, podman, run

_BUILD_TIMEOUT_S = 300.0


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """The Dockerfile's image. Built without layers of an earlier run: what is locked must still be there."""
    podman(
        "build",
        "--format=docker",  # the other format has no place for HEALTHCHECK
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
    """The file of authorities that pip trusts on this machine, if it has one: the network may need it."""
    files = (os.environ.get("PIP_CERT"), os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile)
    return [path for path in files if path and Path(path).is_file()][:1]
