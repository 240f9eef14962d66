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


@pytest.fixture(scope="session")
def extras_image(image: str) -> Iterator[str]:
    """Builds the image with all extras, from the layers of the other image."""
    tag = f"{image}:extras"
    build(f"--build-arg=VERSION={__version__}", "--target=extras", f"--tag={tag}", is_cached=True)
    yield tag
    run("podman", "rmi", "--force", tag)
