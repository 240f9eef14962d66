"""The names of callers without a proof, as connections have them and as settings write them."""

import pytest

from nanonets_proxy.core.access.caller_names import (
    check_name_in_settings,
    is_unproven,
    name_of_address,
    name_of_user,
    stated_name,
)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.8.9.10", "127.0.0.1"),
        ("::1", "127.0.0.1"),
        ("::ffff:127.0.0.2", "127.0.0.1"),
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("2001:db8::ffff:2:3:4", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_addresses_of_one_host_are_one_caller(address: str, name: str) -> None:
    assert name_of_address(address) == name


def test_a_user_of_a_unix_socket_has_a_name_that_settings_accept() -> None:
    assert check_name_in_settings(name_of_user(70)) == "unix:uid=70"


@pytest.mark.parametrize(
    "name",
    [
        "billing",
        "spiffe://a.example/b",
        "10.0.0.7",
        "127.0.0.1",
        "2001:db8::/64",
        "unix:uid=0",
        "unix:uid=70",
        "unix",
    ],
)
def test_a_name_that_a_caller_can_have_is_accepted(name: str) -> None:
    assert check_name_in_settings(name) == name
    assert is_unproven(name) == name.startswith(("1", "2", "u"))


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("127.0.0.2", "write 127.0.0.1,"),
        ("::1", "write 127.0.0.1,"),
        ("[::1]", "write 127.0.0.1,"),
        ("127.0.0.0/8", "write 127.0.0.1,"),
        ("10.0.0.7/32", "write 10.0.0.7,"),
        ("::ffff:10.0.0.7", "write 10.0.0.7,"),
        ("2001:db8::5", "write 2001:db8::/64,"),
        ("2001:DB8::/64", "write 2001:db8::/64,"),
        ("2001:db8::5/128", "write 2001:db8::/64,"),
        ("fe80::1%eth0", "write fe80::/64,"),
        ("10.0.0.0/8", "write one address"),
        ("2001:db8::/32", "write one address"),
        ("10.0.0.0/x", "write one address"),
        ("unix:1000", "write unix:uid=1000"),
        ("unix:uid=01", "write unix:uid=1000"),
    ],
)
def test_another_spelling_of_a_name_is_an_error_with_the_right_one(name: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        check_name_in_settings(name)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"billing", "billing"),
        ("Jürgen 山田".encode(), "Jürgen 山田"),
        ("é".encode("latin-1"), "\\xe9"),
        (b"a\xf0\x9f\x98", "a\\xf0\\x9f\\x98"),
        (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),  # half of a UTF-16 pair
        ("a\x9b31m\tb".encode(), "a\\x9b31m\\tb"),
        ("x\u202etxt.exe".encode(), "x\\u202etxt.exe"),
        ("a\u200bb\u2066\u2028".encode(), "a\\u200bb\\u2066\\u2028"),
        ("é".encode() * 500, "é" * 128),
        ("😀".encode() * 500, "😀" * 128),
        (b"a" + "😀".encode() * 500, "a" + "😀" * 127),
    ],
)
def test_a_stated_name_is_printable_text_of_bounded_length(value: bytes, name: str) -> None:
    assert stated_name(value) == name
    assert name.isprintable()
