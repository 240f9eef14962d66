"""Builds the image once for all system tests."""

from collections.abc import Iterator

import pytest

from nanonets_proxy import __version__
from system.podman import IMAGE, build, run


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """Builds the Dockerfile's image."""
    build(f"--build-arg=VERSION={__version__}", f"--tag={IMAGE}")
    yield IMAGE
    run("podman", "rmi", "--force", IMAGE)
