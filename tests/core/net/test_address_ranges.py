"""Address ranges: which addresses are loopback or public."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nanonets_proxy.core.net.address_ranges import is_loopback_address, is_public_address


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_an_internet_address_is_public(address: str) -> None:
    assert is_public_address(address)


@pytest.mark.parametrize(
    "address",
    [
        *["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"],
        *[
            "::1",
            "fd00::1",
            "fe80::1%eth0",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::1",
            "2002:808:808::1",
            "224.0.0.1",
        ],
        *[
            "::7f00:1",
            "64:ff9b:1::7f00:1",
            "64:ff9b:1::808:808",
            "::ffff:0:7f00:1",
            "fec0::1",
            "fe80::1",
            "ff02::1",
        ],
        *["2001::1", "2001:db8::1", "3fff::1", "5f00::1", "100::1", "255.255.255.255", "192.88.99.1", "198.18.0.1"],
    ],
)
def test_a_private_address_is_not_public_even_if_embedded(address: str) -> None:
    assert not is_public_address(address)


@given(st.ip_addresses())
@example(ip_address("2002:100::"))
def test_no_address_that_python_counts_as_private_is_public(address: IPv4Address | IPv6Address) -> None:
    """The reverse does not hold: releases of Python differ in deprecated forms."""
    plain = getattr(address, "ipv4_mapped", None) or address
    if plain.is_private or plain.is_multicast or plain.is_link_local or plain.is_reserved:
        nat64 = plain.version == 6 and str(plain).startswith("64:ff9b::")
        assert nat64 or not is_public_address(str(address))


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        *(("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True)),
        *(("::7f00:1", False), ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("fe80::1%lo", False)),
    ],
)
def test_loopback_includes_mapped_addresses_on_every_python(address: str, loopback: bool) -> None:
    assert is_loopback_address(address) is loopback
