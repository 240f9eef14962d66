"""A certificate authority, and loops: these tests run on uvloop, as the product does, and on asyncio's own."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

from support.certificates import CertificateAuthority


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.SelectorEventLoop}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("ca"))
