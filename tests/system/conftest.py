"""Builds the image once for all system tests."""

from collections.abc import Iterator

import pytest

from nanonets_proxy import __version__
from system.podman import EXAMPLES_IMAGE, IMAGE, build, run


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """Builds the Dockerfile's image."""
    build(f"--build-arg=VERSION={__version__}", f"--tag={IMAGE}", f"--tag={EXAMPLES_IMAGE}")
    yield IMAGE
    run("podman", "rmi", "--force", IMAGE, EXAMPLES_IMAGE)


@pytest.fixture(scope="session")
def extras_image(image: str) -> Iterator[str]:
    """Builds the image with all extras, from the layers of the other image."""
    tag, examples_tag = f"{image}:extras", f"{EXAMPLES_IMAGE}:extras"
    build(
        f"--build-arg=VERSION={__version__}",
        "--target=extras",
        f"--tag={tag}",
        f"--tag={examples_tag}",
        is_cached=True,
    )
    yield tag
    run("podman", "rmi", "--force", tag, examples_tag)
