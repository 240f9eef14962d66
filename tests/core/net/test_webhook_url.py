"""The receiver of alerts: which URLs and secrets are accepted, and that neither is ever shown."""

from base64 import b64encode

import pytest

from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.core.net.webhook_url import WebhookUrl, parse_webhook_secret, parse_webhook_url

HOOK = "https://hooks.example.com/services/T0/abcdefghijklmnopqrst?token=0123456789abcdefg"


def test_a_url_has_an_origin_a_path_and_a_query() -> None:
    assert parse_webhook_url("http://localhost:9000/alerts?team=a") == WebhookUrl(
        Origin("http", "localhost", 9000), "/alerts?team=a"
    )
    assert parse_webhook_url("https://alerts.example.com").target == "/"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "10.1.2.3", "192.168.0.9", "[fd00::1]", "alerts.internal"])
def test_plain_http_may_lead_to_loopback_private_addresses_and_names(host: str) -> None:
    assert not parse_webhook_url(f"http://{host}/x").origin.tls


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://8.8.8.8/abc", "must be https: plain http is allowed only to loopback and private addresses"),
        ("ftp://example.com/abc", "must start with https:// or http://"),
        ("https://user:abc@example.com/", "must not have a user name"),
        ("https://example.com/#abc", "must not have a fragment"),
        ("https://example.com/a bc", "must be ASCII without spaces: percent-encode other characters"),
        ("https://example.com/ä\r\nabc: 1", "must be ASCII without spaces: percent-encode other characters"),
        ("https://[abc/", "is not a URL: its host or port is malformed"),
        ("https://example.com:abc/", "is not a URL: its host or port is malformed"),
    ],
)
def test_the_fault_of_a_url_is_said_without_the_url(url: str, fault: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the assertion below compares the whole message
        parse_webhook_url(url)
    assert str(caught.value) == fault


def test_neither_str_nor_repr_shows_the_path() -> None:
    url = parse_webhook_url(HOOK)
    assert str(url) == "https://hooks.example.com/***"
    assert "abcdefgh" not in repr(url)
    assert str(parse_webhook_url("https://hooks.example.com/")) == "https://hooks.example.com"


def test_long_parts_of_the_path_are_secrets() -> None:
    assert parse_webhook_url(HOOK).secrets() == (b"abcdefghijklmnopqrst", b"0123456789abcdefg")
    assert parse_webhook_url("https://example.com/alerts").secrets() == ()


def test_a_secret_is_base64_after_its_prefix() -> None:
    key = bytes(range(32))
    assert parse_webhook_secret(f" whsec_{b64encode(key).decode()}\n") == key


@pytest.mark.parametrize(
    "text", ["", "abc", b64encode(bytes(32)).decode(), "whsec_!", "whsec_" + b64encode(bytes(23)).decode()]
)
def test_the_fault_of_a_secret_is_said_without_the_secret(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the assertion below compares the whole message
        parse_webhook_secret(text)
    assert str(caught.value) == "holds no secret: write whsec_ and 24 to 64 random bytes in base64"
