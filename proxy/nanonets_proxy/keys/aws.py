"""Reads the key from AWS Secrets Manager: the version with the stage AWSCURRENT, and the one with AWSPREVIOUS.

boto3 finds credentials and endpoints as usual: in the environment, a profile, or the role of the machine or pod.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nanonets_proxy.core.keys.api_key import ApiKey, KeyUnusable
from nanonets_proxy.core.keys.key_records import FoundKey

if TYPE_CHECKING:
    from nanonets_proxy.keys.change_watch import ChangeWatch

_CURRENT: Final = "AWSCURRENT"
_PREVIOUS: Final = "AWSPREVIOUS"
_FAULTS: Final = {
    "ResourceNotFoundException": "there is no such secret in this region",
    "AccessDeniedException": "permission is denied",
    "InvalidRequestException": "the secret is marked for deletion",
    "DecryptionFailure": "the secret cannot be decrypted with these permissions",
    "UnrecognizedClientException": "AWS rejects the credentials",
    "InvalidSignatureException": "AWS rejects the credentials",
    "ExpiredTokenException": "the AWS credentials have expired",
}


@dataclass(frozen=True, slots=True)
class AwsPolicy:
    """Where the secret is, and how to read it.

    `field`: the field that holds the key if the secret is a JSON object; empty if the secret is the key itself.
    `region`: empty to take the region of the environment or profile.
    """

    secret: str
    field: str
    region: str
    refresh_s: float
    timeout_s: float


class AwsKey:
    """Reads the current version each time, and the previous version only after the current one changed."""

    def __init__(self, policy: AwsPolicy) -> None:
        self._policy = policy
        self._client: Any = None
        self._version = ""
        self._found: tuple[FoundKey, ...] = ()

    @property
    def name(self) -> str:
        return f"aws:{self._policy.secret}"

    def watch(self) -> "ChangeWatch":
        from nanonets_proxy.keys.change_watch import PeriodicWatch  # imported here: as in `FileKey.watch`

        return PeriodicWatch(lambda: self._policy.refresh_s)

    def read(self) -> tuple[FoundKey, ...]:
        """Reads the current version and the previous one. Blocks for a small multiple of `timeout_s` at most.

        Raises:
            KeyUnusable: the service is unreachable or rejects the request, or the secret is not a key.
        """
        try:
            from botocore import exceptions
        except ImportError:
            raise KeyUnusable(self.name, "is unavailable: install the extra nanonets-proxy[aws]") from None
        try:
            return self._read()
        except exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            raise self._unusable(_FAULTS.get(code, f"the service rejects the request ({code})")) from None
        except exceptions.NoRegionError:
            raise self._unusable("no region is known: set aws_region") from None
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
            raise self._unusable("no AWS credentials were found") from None
        except (exceptions.BotoCoreError, OSError, ValueError) as error:
            raise self._unusable(f"the service cannot be reached ({type(error).__name__})") from None

    def _read(self) -> tuple[FoundKey, ...]:
        if self._client is None:
            self._client = self._make_client()
        response = self._get_secret(_CURRENT)
        if response["VersionId"] != self._version:
            self._found = (self._key_from(response, _CURRENT), *self._previous())
            self._version = response["VersionId"]
        return self._found

    def _make_client(self) -> Any:
        import boto3
        from botocore.config import Config

        policy = self._policy
        config = Config(
            connect_timeout=policy.timeout_s,
            read_timeout=policy.timeout_s,
            retries={"mode": "standard", "total_max_attempts": 2},
        )
        session = boto3.session.Session(region_name=policy.region or None)
        return session.client("secretsmanager", config=config)

    def _get_secret(self, stage: str) -> dict[str, Any]:
        response: dict[str, Any] = self._client.get_secret_value(SecretId=self._policy.secret, VersionStage=stage)
        return response

    def _previous(self) -> tuple[FoundKey, ...]:
        """Returns the previous key, or nothing if there is none or it is unusable: the current key suffices."""
        from botocore.exceptions import ClientError

        try:
            return (self._key_from(self._get_secret(_PREVIOUS), _PREVIOUS),)
        except (ClientError, KeyUnusable):
            return ()

    def _key_from(self, response: dict[str, Any], stage: str) -> FoundKey:
        name = f"{self.name}@{stage}"
        text = response.get("SecretString")
        if self._policy.field and isinstance(text, str):
            text = _field_of(text, self._policy.field)
        if not isinstance(text, str):
            where = f" in the field {self._policy.field}" if self._policy.field else ""
            raise KeyUnusable(name, f"is unavailable: there is no text{where}")
        return FoundKey(ApiKey.parse(text, name), response["CreatedDate"].timestamp())

    def _unusable(self, fault: str) -> KeyUnusable:
        return KeyUnusable(self.name, f"is unavailable: {fault}")


def _field_of(text: str, name: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value.get(name) if isinstance(value, dict) else None
