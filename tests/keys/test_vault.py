"""Keys in a real OpenBao, which has Vault's API."""

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from nanonets_proxy.core.keys.api_key import KeyUnusable
from nanonets_proxy.keys.vault import VaultKey
from nanonets_proxy.keys.vault_policy import VaultAuth, VaultPolicy
from support.commands.process import ANY_PORTS, environment, running, sandbox

pytestmark = pytest.mark.system

ROOT_TOKEN = "the-root-token"


@pytest.fixture
def source(bao: Any) -> Callable[..., VaultKey]:
    """Makes a source for `nanonets/prod`. Keyword arguments replace fields of its policy."""

    def make(**changes: Any) -> VaultKey:
        fields: dict[str, Any] = {
            "address": bao.address,
            "mount": "secret",
            "path": "nanonets/prod",
            "secret_field": "api_key",
            "auth": VaultAuth.TOKEN,
            "auth_mount": "",
            "role": "",
            "credential_file": None,
            "namespace": "",
            "ca_file": None,
            "refresh_s": 60.0,
            "timeout_s": 5.0,
            "token": ROOT_TOKEN,
        }
        return VaultKey(VaultPolicy(**fields | changes))

    return make


def value(source: VaultKey) -> bytes:
    return source.read()[0].key.secrets()[-1]


def fault(source: VaultKey) -> str:
    with pytest.raises(KeyUnusable) as caught:
        source.read()
    return str(caught.value)


def test_each_new_version_is_read_with_its_number_and_date(bao: Any, source: Callable[..., VaultKey]) -> None:
    bao.write("nanonets/versions", api_key="first-key")
    vault = source(path="nanonets/versions")
    (first,) = vault.read()
    bao.write("nanonets/versions", api_key="second-key")
    (second,) = vault.read()
    assert (first.key.name, second.key.name) == (
        "vault:secret/nanonets/versions@1",
        "vault:secret/nanonets/versions@2",
    )
    assert value(vault) == b"second-key"
    assert abs(second.created_at_s - time.time()) < 60


def test_approle_logs_in_again_when_its_login_was_revoked(
    bao: Any, source: Callable[..., VaultKey], tmp_path: Path
) -> None:
    bao.write("nanonets/prod", api_key="the-key")
    bao.ask("POST", "auth/approle/role/proxy", token_policies=["reader"], token_ttl="1h")
    role_id = bao.ask("GET", "auth/approle/role/proxy/role-id")["data"]["role_id"]
    secret = bao.ask("POST", "auth/approle/role/proxy/secret-id", ttl="1h")["data"]["secret_id"]
    (tmp_path / "secret-id").write_text(f"{secret}\n")
    vault = source(auth=VaultAuth.APPROLE, role=role_id, credential_file=tmp_path / "secret-id", token=None)
    assert value(vault) == b"the-key"
    bao.ask("PUT", "sys/leases/revoke-prefix/auth/approle")
    assert value(vault) == b"the-key"
    (tmp_path / "secret-id").write_text("a-wrong-one")
    bao.ask("PUT", "sys/leases/revoke-prefix/auth/approle")
    assert "the server rejects the login or the request" in fault(vault)


def test_a_short_lease_is_renewed_before_it_ends(bao: Any, source: Callable[..., VaultKey], tmp_path: Path) -> None:
    bao.write("nanonets/prod", api_key="the-key")
    bao.ask("POST", "auth/approle/role/brief", token_policies=["reader"], token_ttl="3s", token_max_ttl="3s")
    role_id = bao.ask("GET", "auth/approle/role/brief/role-id")["data"]["role_id"]
    secret = bao.ask("POST", "auth/approle/role/brief/secret-id", ttl="1h")["data"]["secret_id"]
    (tmp_path / "secret-id").write_text(secret)
    vault = source(auth=VaultAuth.APPROLE, role=role_id, credential_file=tmp_path / "secret-id", token=None)
    began_s = time.monotonic()
    while time.monotonic() - began_s < 7:
        assert value(vault) == b"the-key"
        assert vault._next_read_s() <= 2.01
        time.sleep(0.5)


def test_a_token_from_a_file_is_renewed_and_a_new_token_is_read_from_the_file(
    bao: Any, source: Callable[..., VaultKey], tmp_path: Path
) -> None:
    bao.write("nanonets/prod", api_key="the-key")

    def token(**options: Any) -> str:
        response = bao.ask("POST", "auth/token/create", policies=["reader"], no_parent=True, **options)
        return str(response["auth"]["client_token"])

    (tmp_path / "token").write_text(token(ttl="3s", period="3s"))
    vault = source(credential_file=tmp_path / "token", token=None)
    began_s = time.monotonic()
    while time.monotonic() - began_s < 5:
        assert value(vault) == b"the-key"
        time.sleep(0.5)
    time.sleep(3.5)
    (tmp_path / "token").write_text(token(ttl="1h"))
    assert value(vault) == b"the-key"


def test_kubernetes_logs_in_with_the_service_accounts_token(
    bao: Any, source: Callable[..., VaultKey], kubernetes: str, tmp_path: Path, service_token: Callable[..., str]
) -> None:
    bao.write("nanonets/prod", api_key="the-key")
    bao.ask(
        "POST",
        "auth/kubernetes/config",
        kubernetes_host=kubernetes,
        token_reviewer_jwt=service_token(),
        disable_local_ca_jwt=True,
        kubernetes_ca_cert=trustme.CA().cert_pem.bytes().decode(),
    )
    bao.ask(
        "POST",
        "auth/kubernetes/role/proxy",
        bound_service_account_names=["the-service-account"],
        bound_service_account_namespaces=["default"],
        token_policies=["reader"],
        token_ttl="1h",
    )
    (tmp_path / "token").write_text(service_token())
    fields = {"auth": VaultAuth.KUBERNETES, "credential_file": tmp_path / "token", "token": None}
    assert value(source(role="proxy", **fields)) == b"the-key"
    assert "is unavailable" in fault(source(role="no-such-role", **fields))
    (tmp_path / "token").write_text(service_token("somebody-else"))
    assert "permission is denied" in fault(source(role="proxy", **fields))


def test_each_fault_is_reported_in_one_sentence(
    bao: Any, source: Callable[..., VaultKey], free_address: str, tmp_path: Path
) -> None:
    bao.write("nanonets/prod", api_key="the-key")
    bao.write("nanonets/bad", api_key="a:key", other="x")
    bao.write("other/secret", api_key="the-key")
    begin = f"the API key of vault:secret/nanonets/prod is unavailable from {bao.address}: "
    response = bao.ask("POST", "auth/token/create", policies=["reader"])
    reader = response["auth"]["client_token"]
    missing = fault(source(path="nanonets/none", token=reader))
    assert missing.endswith("the path holds no secret, or its latest version is deleted")
    assert fault(source(path="other/secret", token=reader)).endswith("permission is denied")
    assert fault(source(token="no-such-token")) == f"{begin}permission is denied"
    assert fault(source(token=None)) == f"{begin}neither VAULT_TOKEN nor vault_credential_file is set"
    assert fault(source(credential_file=tmp_path / "none")) == (
        f"{begin}the file {tmp_path / 'none'} (vault_credential_file) does not exist"
    )
    assert "there is no text in the field key" in fault(source(secret_field="key"))
    assert fault(source(path="nanonets/bad")).endswith("@1 has a colon in it")
    assert fault(source(mount="nowhere")).endswith("the path holds no secret, or its latest version is deleted")
    assert "the server cannot be reached (ConnectionError)" in fault(source(address=free_address))


def test_a_deleted_version_is_reported(bao: Any, source: Callable[..., VaultKey]) -> None:
    bao.write("nanonets/gone", api_key="the-key")
    vault = source(path="nanonets/gone")
    assert value(vault) == b"the-key"
    bao.ask("DELETE", "secret/data/nanonets/gone")
    assert fault(vault).endswith("the path holds no secret, or its latest version is deleted")


def test_the_proxy_uses_a_new_version_and_keeps_serving_while_the_store_is_down(
    own_bao: Any, tmp_path: Path
) -> None:
    own_bao.write("nanonets/served", api_key="first-key")
    (tmp_path / "token").write_text(ROOT_TOKEN)
    flags = ["--vault-path", "nanonets/served", "--vault-address", own_bao.address]
    flags += ["--vault-credential-file", str(tmp_path / "token"), "--key-refresh", "200ms"]

    def get(url: str) -> int:
        with urllib.request.urlopen(f"{url}/api/v4/workflows", timeout=60) as response:
            return int(response.status)

    with (
        sandbox(key="first-key") as upstream,
        running(["serve", *ANY_PORTS, "--upstream", upstream, *flags], environment()) as proxy,
    ):
        assert get(proxy.url) == 200
        accept = urllib.request.Request(
            f"{upstream}/sandbox/keys", json.dumps({"keys": ["first-key", "second-key"]}).encode(), method="POST"
        )
        urllib.request.urlopen(accept, timeout=60).close()
        own_bao.write("nanonets/served", api_key="second-key")
        while get(proxy.url) == 200 and not any(
            event["event"] == "key_active" and event["key"].endswith("@2") for event in proxy.events
        ):
            proxy.wait_for_next("request")
        (tmp_path / "token").write_text("revoked")
        own_bao.ask("PUT", "sys/seal")
        assert "sealed or down" in proxy.wait_for("key_source_failed")["reason"]
        assert get(proxy.url) == 200
        assert proxy.end() == 0
    assert ROOT_TOKEN.encode() not in proxy.stdout + proxy.stderr
    assert b"second-key" not in proxy.stdout + proxy.stderr
