"""Stores whose libraries are not installed."""

import sys

import pytest

from nanonets_proxy.core.keys.api_key import KeyUnusable
from nanonets_proxy.keys.aws import AwsKey, AwsPolicy
from nanonets_proxy.keys.vault import VaultKey
from nanonets_proxy.keys.vault_policy import VaultAuth, VaultPolicy


def test_without_the_vault_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hvac", None)
    policy = VaultPolicy(
        "http://127.0.0.1:1", "secret", "p", "api_key", VaultAuth.TOKEN, "", "", None, "", None, 60.0, 1.0, "t"
    )
    with pytest.raises(KeyUnusable) as caught:
        VaultKey(policy).read()
    assert str(caught.value) == (
        "the API key of vault:secret/p is unavailable: install the extra nanonets-proxy[vault]"
    )


def test_without_the_aws_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore", None)
    with pytest.raises(KeyUnusable) as caught:
        AwsKey(AwsPolicy("s", "", "", 60.0, 1.0)).read()
    assert str(caught.value) == ("the API key of aws:s is unavailable: install the extra nanonets-proxy[aws]")


def test_the_representation_of_a_policy_does_not_show_its_token() -> None:
    policy = VaultPolicy(
        "http://127.0.0.1:1", "secret", "p", "api_key", VaultAuth.TOKEN, "", "", None, "", None, 60.0, 1.0, "s3cret"
    )
    assert "s3cret" not in repr(policy)
