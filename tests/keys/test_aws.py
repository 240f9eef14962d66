"""Keys in a simulated AWS Secrets Manager."""

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from nanonets_proxy.core.keys.api_key import KeyUnusable
from nanonets_proxy.keys.aws import AwsKey, AwsPolicy

pytestmark = pytest.mark.system


@pytest.fixture
def client(aws_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An operator's client. The environment directs the key source to the same service."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", aws_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return boto3.session.Session(region_name="eu-central-1").client("secretsmanager")


@pytest.fixture
def make_secret(client: Any) -> Callable[[str], str]:
    def make(value: str) -> str:
        name = f"nanonets/{uuid.uuid4()}"
        client.create_secret(Name=name, SecretString=value)
        return name

    return make


def source(secret: str, field: str = "", region: str = "eu-central-1") -> AwsKey:
    return AwsKey(AwsPolicy(secret, field, region, refresh_s=60.0, timeout_s=5.0))


def values(aws: AwsKey) -> list[bytes]:
    return [found.key.secrets()[-1] for found in aws.read()]


def fault(aws: AwsKey) -> str:
    with pytest.raises(KeyUnusable) as caught:
        aws.read()
    return str(caught.value)


def test_the_current_version_is_followed_by_the_previous_one(
    client: Any, make_secret: Callable[[str], str]
) -> None:
    name = make_secret("first-key")
    aws = source(name)
    assert values(aws) == [b"first-key"]
    client.put_secret_value(SecretId=name, SecretString="second-key")
    current, previous = aws.read()
    assert (current.key.name, previous.key.name) == (f"aws:{name}@AWSCURRENT", f"aws:{name}@AWSPREVIOUS")
    assert values(aws) == [b"second-key", b"first-key"]
    assert abs(current.created_at_s - time.time()) < 60


def test_the_key_may_be_a_field_of_a_json_secret(make_secret: Callable[[str], str]) -> None:
    name = make_secret(json.dumps({"api_key": "the-key", "other": 1}))
    assert values(source(name, "api_key")) == [b"the-key"]
    assert fault(source(name, "other")).endswith("@AWSCURRENT is unavailable: there is no text in the field other")
    assert "there is no text in the field f" in fault(source(make_secret("no json"), "f"))


def test_a_previous_version_that_is_not_a_key_is_ignored(client: Any, make_secret: Callable[[str], str]) -> None:
    name = make_secret("not:a:key")
    assert fault(source(name)).endswith("has a colon in it")
    client.put_secret_value(SecretId=name, SecretString="a-key")
    assert values(source(name)) == [b"a-key"]


def test_each_fault_is_reported_in_one_sentence(
    client: Any, make_secret: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, free_address: str
) -> None:
    assert fault(source("nanonets/none")) == (
        "the API key of aws:nanonets/none is unavailable: there is no such secret in this region"
    )
    name = make_secret("the-key")
    client.delete_secret(SecretId=name, RecoveryWindowInDays=7)
    assert fault(source(name)).endswith("the secret is marked for deletion")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.delenv("AWS_REGION", raising=False)
    assert fault(source(name, region="")).endswith("no region is known: set aws_region")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", free_address)
    assert "the service cannot be reached (EndpointConnectionError)" in fault(source(name))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert fault(source(name)).endswith("no AWS credentials were found")
