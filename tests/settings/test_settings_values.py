"""The values that each setting accepts, and the exact error for every other value."""

import datetime as dt
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nanonets_proxy.core.net.addresses import (
    EgressProxy,
    Origin,
    TcpListener,
    UnixListener,
    is_loopback,
    parse_listener,
)
from nanonets_proxy.settings import (
    LoadedSettings,
    Settings,
    SettingsError,
    load_settings,
    verify_files,
)
from nanonets_proxy.settings.model.quantities import format_duration, format_size, parse_duration, parse_size

NO_CONFIG = Path("/nonexistent/nanonets-proxy.toml")
FORMS = "write localhost:8080, 127.0.0.1:8080, [::1]:8080, :8080 for all interfaces, or unix:/path?mode=0660"
SIZES = "write bytes, or 512KiB, 64MiB, 1GB"
TIMES = "write seconds, or 500ms, 30s, 5m, 1h"


def load(**given: Any) -> LoadedSettings[Settings]:
    """Loads settings whose values all come from the environment."""
    environ = {f"NANONETS_PROXY_{name.upper()}": value for name, value in given.items()}
    return load_settings({}, environ, dirs=[], default_config=NO_CONFIG)


def problems(**given: Any) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(**given)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("listen", "", "must name at least one address"),
        ("listen", "8080", f"'8080' has no port: {FORMS}"),
        ("listen", "127.0.0.1", f"'127.0.0.1' has no port: {FORMS}"),
        (
            "listen",
            "127.0.0.1:65536",
            f"'127.0.0.1:65536' has no port from 0 to 65535 after the last colon: {FORMS}",
        ),
        (
            "listen",
            "127.0.0.1:http",
            f"'127.0.0.1:http' has no port from 0 to 65535 after the last colon: {FORMS}",
        ),
        ("listen", "::1:8080", f"'::1:8080' needs brackets around its IPv6 address: {FORMS}"),
        ("listen", "[127.0.0.1]:1", f"'[127.0.0.1]:1' has no IPv6 address in its brackets: {FORMS}"),
        ("listen", "127.0.0.256:1", f"'127.0.0.256:1' has no address or host name before the port: {FORMS}"),
        (
            "listen",
            "http://127.0.0.1:1",
            f"'http://127.0.0.1:1' needs brackets around its IPv6 address: {FORMS}",
        ),
        ("listen", "127.0.0.1:1,,127.0.0.1:2", "has an empty item in its list"),
        ("listen", "unix:socket", "'unix:socket' needs an absolute path: write unix:/path?mode=0660"),
        (
            "listen",
            "unix:/s?mode=888",
            (
                "'unix:/s?mode=888' has an option that is neither mode=0660 nor owner=user:group: "
                "write unix:/path?mode=0660&owner=app:team"
            ),
        ),
        (
            "listen",
            "unix:/s?uid=1",
            (
                "'unix:/s?uid=1' has an option that is neither mode=0660 nor owner=user:group: "
                "write unix:/path?mode=0660&owner=app:team"
            ),
        ),
        (
            "listen",
            f"unix:/{'s' * 103}",
            f"'unix:/{'s' * 103}' is too long: a socket's path has at most 103 bytes",
        ),
        ("admin_listen", "", "must name at least one address"),
        ("admin_listen", "none", f"'none' has no port: {FORMS}"),
        ("allow_from", "10.0.0.1/8", "'10.0.0.1/8' has address bits set after its prefix: write 10.0.0.0/8"),
        ("allow_from", "fd00::1/8", "'fd00::1/8' has address bits set after its prefix: write fd00::/8"),
        ("allow_from", "lan", "'lan' is not a network: write 10.0.0.0/8, fd00::/8, or one address"),
        (
            "allowed_hosts",
            "proxy:8080",
            "'proxy:8080' is not a host name: write proxy.example.com or *.example.com, without a port",
        ),
        ("allowed_hosts", "*", "'*' is not a host name: write proxy.example.com or *.example.com, without a port"),
        (
            "api_key_command_variables",
            "A=b",
            "'A=b' is not the name of a variable: write VAULT_TOKEN, or AWS_* for all that begin so",
        ),
        ("caller_header", "X Team", "'X Team' is not a token: use only letters, digits and !#$%&'*+-.^_`|~"),
        ("via", "a/b", "'a/b' is not a token: use only letters, digits and !#$%&'*+-.^_`|~"),
        ("upstream", "", "must start with https:// or http://"),
        ("upstream", "app.nanonets.com", "must start with https:// or http://"),
        ("upstream", "ftp://app.nanonets.com", "must start with https:// or http://"),
        ("upstream", "https:app.nanonets.com", "must start with https:// or http://"),
        (
            "upstream",
            "http://app.nanonets.com",
            "must be https: plain http would show the key to the network, and is allowed to loopback only",
        ),
        (
            "upstream",
            "http://localhost.example.com",
            "must be https: plain http would show the key to the network, and is allowed to loopback only",
        ),
        (
            "upstream",
            "https://s3cret:@app.nanonets.com",
            "must not have a user name: the key has its own settings, such as NANONETS_API_KEY",
        ),
        (
            "upstream",
            "https://app.nanonets.com/api/v4",
            "must end after the host and port: no path, query or fragment",
        ),
        ("upstream", "https://app.nanonets.com?", "must end after the host and port: no path, query or fragment"),
        ("upstream", "https://app.nanonets.com/#", "must end after the host and port: no path, query or fragment"),
        ("upstream", "https://", "has no valid host name or address"),
        ("upstream", "https://127.1", "has no valid host name or address"),
        ("upstream", "https://a b", "has no valid host name or address"),
        ("upstream", "https://host:port", "is not a URL: its host or port is malformed"),
        ("upstream", "https://host:0", "has the port 0, to which nothing can connect"),
        ("upstream", "https://[::1", "is not a URL: its host or port is malformed"),
        ("egress_proxy", "https://proxy:3128", "must start with http://"),
        ("egress_proxy", "socks5://u:s3cret@proxy:1080", "must start with http://"),
        (
            "egress_proxy",
            "http://u:s3cret@proxy:3128/path",
            "must end after the host and port: no path, query or fragment",
        ),
        ("egress_proxy", "http://u:s3cret@proxy:what", "is not a URL: its host or port is malformed"),
        ("connect_timeout", "soon", f"'soon' is not a duration: {TIMES}"),
        ("connect_timeout", "", f"'' is not a duration: {TIMES}"),
        ("connect_timeout", "5 weeks", f"'5 weeks' is not a duration: {TIMES}"),
        ("connect_timeout", "-1", f"'-1' is not a duration: {TIMES}"),
        ("connect_timeout", "nan", f"'nan' is not a duration: {TIMES}"),
        ("connect_timeout", "0", "must be at least 1ms, not '0'"),
        ("connect_timeout", "366d", "must be from 0 to 365 days, not '366d'"),
        ("first_byte_timeout", "0s", "must be at least 1ms, not '0s'"),
        ("idle_timeout", "0s", "must be at least 1ms, not '0s'"),
        ("upstream_keep_alive", "0s", "must be at least 1ms, not '0s'"),
        ("keep_alive", "0s", "must be at least 1ms, not '0s'"),
        ("max_wait", "0s", "must be at least 1ms, not '0s'"),
        ("drain_timeout", "0s", "must be at least 1ms, not '0s'"),
        ("log_successes", "1.5", "must be a number from 0 to 1, not '1.5'"),
        ("pool_size", "0", "must be between 1 and 16384, not 0"),
        ("pool_size", "many", "'many' is not a whole number"),
        ("pool_size", "1.5", "'1.5' is not a whole number"),
        ("max_waiting", "1000001", "must be between 1 and 1000000, not 1000001"),
        ("body_memory", "1XB", f"'1XB' is not a size: {SIZES}"),
        ("body_memory", "-1", f"'-1' is not a size: {SIZES}"),
        ("body_memory", "0.3B", "must be a whole number of bytes, not '0.3B'"),
        ("body_memory_total", "", f"'' is not a size: {SIZES}"),
        ("spool_total", "9000000TiB", "must be a whole number of bytes, not '9000000TiB'"),
        ("replay_limit", "big", f"'big' is not a size: {SIZES}"),
        ("scopes", "POST", "'POST' is not of the form METHOD /path -> scope"),
        ("server_timing", "maybe", "must be true or false, not 'maybe'"),
        ("sandbox", "", "must be true or false, not ''"),
        ("log_format", "xml", "must be auto, json or console, not 'xml'"),
        ("log_level", "DEBUG", "must be debug, info, warning or error, not 'DEBUG'"),
        ("ca_file", "a\0b", "is not a file name: it contains a null byte"),
    ],
)
def test_an_invalid_value_is_one_sentence_with_setting_and_source(name: str, text: str, sentence: str) -> None:
    (problem,) = problems(**{name: text})
    assert problem == f"{name}: {sentence} (environment NANONETS_PROXY_{name.upper()})"
    assert "s3cret" not in problem


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("listen = 8080", "listen: must be a string or a list of strings"),
        ("listen = [8080]", "listen: must be a string or a list of strings"),
        ("admin_listen = true", "admin_listen: must be a string or a list of strings"),
        ("upstream = 1", "upstream: must be a string, not 1"),
        ("egress_proxy = 1", "egress_proxy: must be a string"),
        ("max_wait = true", f"max_wait: true is not a duration: {TIMES}"),
        ("max_wait = inf", "max_wait: must be from 0 to 365 days, not inf"),
        ("max_wait = nan", "max_wait: must be from 0 to 365 days, not nan"),
        ("body_memory = 1.0", f"body_memory: 1.0 is not a size: {SIZES}"),
        ("body_memory = true", f"body_memory: true is not a size: {SIZES}"),
        ("pool_size = true", "pool_size: true is not a whole number"),
        ("sandbox = 2", "sandbox: must be true or false, not 2"),
        ("log_level = ['info']", "log_level: must be debug, info, warning or error, not ['info']"),
        ("via = {}", "via: must be a string, not {}"),
    ],
)
def test_a_toml_value_of_the_wrong_type_is_one_sentence(line: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(f"{line}\n")
    with pytest.raises(SettingsError) as caught:
        load_settings({}, {}, dirs=[], default_config=path)
    assert caught.value.problems == (f"{sentence} ({path}:1)",)


# --- combinations of values --------------------------------------------------------------------


@pytest.mark.parametrize("address", [":8080", "0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080", "proxy.local:8080"])
@pytest.mark.parametrize("name", ["listen", "admin_listen"])
def test_a_listener_for_other_machines_needs_allowed_callers(name: str, address: str) -> None:
    (problem,) = problems(**{name: address})
    setting, tokens = ("allow_from", " or caller_tokens,") if name == "listen" else ("admin_allow_from", "")
    assert problem == (
        f"{name}: other machines can reach {address} (environment NANONETS_PROXY_{name.upper()}), but "
        f"allow_from allows none of them: set {setting}, such as 10.0.0.0/8,{tokens} or listen on localhost"
    )
    assert load(**{name: address, setting: "10.0.0.0/8"}).settings.model_dump()[setting]
    assert load(**{name: address, "allow_from": "10.0.0.0/8"}).settings.allow_from == (ip_network("10.0.0.0/8"),)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/s"])
def test_a_local_listener_needs_no_allowed_networks(address: str) -> None:
    assert load(listen=address, admin_listen="off").settings.listen[0].is_local


def test_two_listeners_cannot_share_an_address() -> None:
    for address in ("localhost:8080", "127.0.0.1:8080", "[::1]:8080"):
        assert problems(admin_listen=address) == (f"admin_listen: {address} is already used by listen (default)",)
    assert problems(listen=":1,0.0.0.0:1", allow_from="10.0.0.0/8") == (
        "listen: 0.0.0.0:1 is already used by listen (environment NANONETS_PROXY_LISTEN)",
    )
    assert problems(listen="unix:/s,unix:/s?mode=0600") == (
        "listen: unix:/s?mode=0600 is already used by listen (environment NANONETS_PROXY_LISTEN)",
    )
    assert load(listen="127.0.0.1:0,127.0.0.1:0", admin_listen="127.0.0.1:0").settings.listen


def test_an_egress_proxy_needs_an_https_upstream() -> None:
    (problem,) = problems(egress_proxy="http://u:s3cret@proxy:3128", upstream="http://127.0.0.1:1")
    assert problem == (
        "egress_proxy: works only with an https upstream (environment NANONETS_PROXY_EGRESS_PROXY); "
        "upstream (environment NANONETS_PROXY_UPSTREAM) is http://127.0.0.1:1"
    )


@pytest.mark.parametrize("bound", ["body_memory_total", "replay_limit"])
def test_one_bodys_memory_is_at_most_the_total(bound: str) -> None:
    (problem,) = problems(**{"body_memory": "2MiB", bound: "1MiB"})
    assert problem == (
        f"body_memory: is larger than {bound} (environment NANONETS_PROXY_{bound.upper()}) allows "
        "(environment NANONETS_PROXY_BODY_MEMORY)"
    )


# --- values of valid settings -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "listener"),
    [
        ("127.0.0.1:8080", TcpListener("127.0.0.1", 8080)),
        ("[::1]:8080", TcpListener("::1", 8080)),
        (":0", TcpListener("", 0)),
        ("LocalHost:1", TcpListener("localhost", 1)),
        ("unix:/run/proxy.sock", UnixListener("/run/proxy.sock", 0o660)),
        ("unix:/run/proxy.sock?mode=0600", UnixListener("/run/proxy.sock", 0o600)),
        ("unix:/s?mode=0660&owner=app", UnixListener("/s", owner="app")),
        ("unix:/s?owner=1000:team", UnixListener("/s", owner="1000", group="team")),
        ("unix:/s?owner=:team", UnixListener("/s", group="team")),
        ("unix:/run/proxy.sock?mode=777", UnixListener("/run/proxy.sock", 0o777)),
    ],
)
def test_a_listener_address_reads_back_from_its_text(text: str, listener: object) -> None:
    assert parse_listener(text) == listener
    assert parse_listener(str(listener)) == listener


def test_a_string_with_commas_holds_several_addresses() -> None:
    settings = load(listen=" 127.0.0.1:1 , [::1]:2,unix:/s").settings
    assert settings.listen == (TcpListener("127.0.0.1", 1), TcpListener("::1", 2), UnixListener("/s"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("admin_quit", "true"),
        ("admin_allow_from", "10.0.0.0/8"),
        ("admin_tokens", "prometheus sha256:" + 64 * "a"),
    ],
)
def test_a_setting_of_the_admin_listener_needs_the_listener(name: str, value: str) -> None:
    (problem,) = problems(admin_listen="off", **{name: value})
    assert problem == (
        f"{name}: needs the admin listener (environment NANONETS_PROXY_{name.upper()}), but admin_listen is off "
        "(environment NANONETS_PROXY_ADMIN_LISTEN)"
    )


def test_the_admin_listener_can_be_off() -> None:
    assert load(admin_listen="off").settings.admin_listen == ()
    assert Settings(admin_listen=False).admin_listen == ()


@pytest.mark.parametrize(
    ("text", "origin", "authority"),
    [
        ("https://app.nanonets.com", Origin("https", "app.nanonets.com", 443), "app.nanonets.com"),
        ("https://APP.nanonets.com:443/", Origin("https", "app.nanonets.com", 443), "app.nanonets.com"),
        ("HTTPS://[2001:db8::1]:8443", Origin("https", "2001:db8::1", 8443), "[2001:db8::1]:8443"),
        ("http://localhost", Origin("http", "localhost", 80), "localhost"),
        ("http://127.0.0.1:8090", Origin("http", "127.0.0.1", 8090), "127.0.0.1:8090"),
        ("http://[::1]:8090", Origin("http", "::1", 8090), "[::1]:8090"),
    ],
)
def test_the_upstream_becomes_an_origin(text: str, origin: Origin, authority: str) -> None:
    settings = load(upstream=text).settings
    assert (settings.upstream, settings.upstream.authority) == (origin, authority)
    assert authority in settings.upstream.authorities
    assert settings.upstream.tls == text.lower().startswith("https")


def test_the_egress_proxys_credentials_are_decoded_and_never_shown() -> None:
    proxy = load(egress_proxy="http://us%40er:s3%3Acret@proxy.example.com:3128").settings.egress_proxy
    assert proxy == EgressProxy("proxy.example.com", 3128, b"us@er:s3:cret")
    assert proxy.authorization() == b"Basic dXNAZXI6czM6Y3JldA=="
    assert proxy.secrets() == (b"dXNAZXI6czM6Y3JldA", b"s3:cret")
    assert str(proxy) == "http://***@proxy.example.com:3128"
    assert "cret" not in repr(proxy)


def test_an_egress_proxy_without_a_user_has_no_credentials() -> None:
    proxy = load(egress_proxy="http://[::1]").settings.egress_proxy
    assert proxy == EgressProxy("::1", 80)
    assert (proxy.authorization(), proxy.secrets(), str(proxy)) == (None, (), "http://[::1]:80")


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("", False), ("::", False)]
)
def test_loopback_is_a_loopback_address_or_localhost(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("300", 300), ("300s", 300), ("5m", 300), ("1.5 h", 5400), ("500ms", 0.5), (".5", 0.5), (2, 2), ("1d", 86400)],
)
def test_a_duration_is_seconds_or_a_number_with_a_unit(value: str | int, seconds: float) -> None:
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    ("value", "size"),
    [("64MiB", 2**26), ("1GB", 10**9), ("1.5kib", 1536), ("10", 10), ("10 B", 10), (5, 5), ("0", 0)],
)
def test_a_size_is_bytes_or_a_number_with_a_unit(value: str | int, size: int) -> None:
    assert parse_size(value) == size


@given(st.floats(0.001, 365 * 86400))
def test_every_duration_reads_back_from_its_text(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 2**52))
def test_every_size_reads_back_from_its_text(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("word", "value"), [("true", True), ("ON", True), ("1", True), ("no", False), ("0", False)]
)
def test_a_switch_takes_the_usual_words(word: str, value: bool) -> None:
    assert load(server_timing=word).settings.server_timing is value


def test_hosts_become_lower_case_and_scope_rules_keep_their_text() -> None:
    hosts = "Proxy.Example.COM,*.example.org,10.0.0.7,[FD00:0::1]"
    settings = load(allowed_hosts=hosts, scopes="GET /a/{b} -> c:{b}").settings
    assert settings.allowed_hosts == ("proxy.example.com", "*.example.org", "10.0.0.7", "fd00::1")
    assert tuple(map(str, settings.scopes)) == ("GET /a/{b} -> c:{b}",)


def test_an_empty_string_means_no_file_no_proxy_or_an_empty_list() -> None:
    settings = load(
        ca_file="", egress_proxy="", api_key_file="", spool_dir="", allow_from="", allowed_hosts=""
    ).settings
    assert settings == Settings()


def test_a_path_may_start_with_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert load(ca_file="~/ca.pem").settings.ca_file == Path("/home/someone/ca.pem")


def test_settings_are_frozen_and_reject_other_names() -> None:
    with pytest.raises(ValidationError):
        Settings().via = "x"
    with pytest.raises(ValidationError):
        Settings.model_validate({"vias": "x"})
    with pytest.raises(ValidationError) as caught:
        Settings(egress_proxy="ftp://u:s3cret@proxy")
    assert "s3cret" not in str(caught.value)


# --- files that the settings name --------------------------------------------------------------


def test_valid_certificates_and_a_writable_directory_pass_the_check(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(ca_file))
    loaded = load(ca_file=str(ca_file), spool_dir=str(tmp_path))
    verify_files(loaded)
    assert loaded.settings.spool_path() == tmp_path


def test_the_default_spool_dir_is_the_systems_temporary_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert load().settings.spool_path() == tmp_path


def test_each_unusable_file_is_one_sentence(tmp_path: Path) -> None:
    no_pem = tmp_path / "no.pem"
    no_pem.write_text("hello")
    missing = tmp_path / "missing"

    def faults(**given: str) -> tuple[str, ...]:
        with pytest.raises(SettingsError) as caught:
            verify_files(load(**given))
        return caught.value.problems

    source = "(environment NANONETS_PROXY_CA_FILE)"
    spool_source = "(environment NANONETS_PROXY_SPOOL_DIR)"
    assert faults(ca_file=str(no_pem)) == (f"ca_file: {no_pem} holds no PEM certificates {source}",)
    assert faults(ca_file=str(missing), spool_dir=str(missing)) == (
        f"ca_file: {missing} does not exist {source}",
        f"spool_dir: {missing} cannot hold request bodies: no such file or directory {spool_source}",
    )
    assert faults(spool_dir=str(no_pem)) == (
        f"spool_dir: {no_pem} cannot hold request bodies: not a directory {spool_source}",
    )


def test_a_file_with_only_revocation_lists_is_not_a_ca_file(tmp_path: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    revocations = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")]))
        .last_update(now)
        .next_update(now + dt.timedelta(days=1))
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    ca_file = tmp_path / "crl.pem"
    ca_file.write_bytes(revocations.public_bytes(serialization.Encoding.PEM))
    with pytest.raises(SettingsError, match="holds no PEM certificates"):
        verify_files(load(ca_file=str(ca_file)))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "does not exist"),
        ("secret", "holds no secret: write whsec_ and 24 to 64 random bytes in base64"),
    ],
)
def test_an_unusable_secret_of_the_webhook_is_an_error_at_start(
    content: str | None, fault: str, tmp_path: Path
) -> None:
    file = tmp_path / "webhook"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError) as caught:
        verify_files(load(webhook_url="https://alerts.example.com/", webhook_secret_file=str(file)))
    (problem,) = caught.value.problems
    assert problem.startswith(f"webhook_secret_file: {file} {fault} (")


def test_the_fault_of_a_webhook_url_is_said_without_its_path() -> None:
    with pytest.raises(SettingsError) as caught:
        load(webhook_url="http://8.8.8.8/hidden")
    (problem,) = caught.value.problems
    assert "webhook_url: must be https: plain http is allowed only to loopback and private addresses" in problem
    assert "hidden" not in problem
