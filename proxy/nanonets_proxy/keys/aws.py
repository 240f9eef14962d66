"""The key in AWS Secrets Manager: the version with the stage AWSCURRENT, and the one before, AWSPREVIOUS.

Credentials and endpoints come as with every AWS program: environment, profile, the machine's or pod's role.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from nanonets_proxy.core.keys.api_key import ApiKey, KeyUnusable
from nanonets_proxy.core.keys.key_records import FoundKey
from nanonets_proxy.keys.change_watch import ChangeWatch, PeriodicWatch

_CURRENT: Final = "AWSCURRENT"
_PREVIOUS: Final = "AWSPREVIOUS"
_NOT_FOUND: Final = "ResourceNotFoundException"
_FAULTS: Final = {
    _NOT_FOUND: "there is no such secret in this region",
    "AccessDeniedException": "permission is denied",
    "InvalidRequestException": "the secret is marked for deletion",
    "DecryptionFailure": "it cannot be decrypted with this permission",
    "UnrecognizedClientException": "the AWS credentials are refused",
    "InvalidSignatureException": "the AWS credentials are refused",
    "ExpiredTokenException": "the AWS credentials have expired",
}


@dataclass(frozen=True, slots=True)
class AwsPolicy:
    """`field`: the name of the key's field where the secret is a JSON object; empty where it is the key itself.

    `region` empty: as environment or profile have it."""

    secret: str
    field: str
    region: str
    refresh_s: float
    timeout_s: float


class AwsKey:
    """Asks the service at each `read`; for the version before only when the current one has changed."""

    def __init__(self, policy: AwsPolicy) -> None:
        self._policy = policy
        self._client: Any = None
        self._version = ""
        self._found: tuple[FoundKey, ...] = ()

    @property
    def name(self) -> str:
        return f"aws:{self._policy.secret}"

    def watch(self) -> ChangeWatch:
        return PeriodicWatch(lambda: self._policy.refresh_s)

    def read(self) -> tuple[FoundKey, ...]:
        """Asks for the current version, and the one before; blocks for some multiple of `timeout_s` at most.

        Raises:
            KeyUnusable: the service cannot be reached or refuses, or what it holds is no key.
        """
        try:
            from botocore import exceptions
        except ImportError:
            raise KeyUnusable(self.name, "cannot be had: install the extra it needs, nanonets-proxy[aws]") from None
        try:
            return self._ask()
        except exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            raise self._unusable(_FAULTS.get(code, f"the service refuses ({code})")) from None
        except exceptions.NoRegionError:
            raise self._unusable("no region is given; see aws_region") from None
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
            raise self._unusable("there are no AWS credentials") from None
        except (exceptions.BotoCoreError, OSError, ValueError) as error:
            raise self._unusable(f"the service cannot be reached ({type(error).__name__})") from None

    def _ask(self) -> tuple[FoundKey, ...]:
        if self._client is None:
            self._client = self._make_client()
        answer = self._value(_CURRENT)
        if answer["VersionId"] != self._version:
            self._found = (self._key_in(answer, _CURRENT), *self._previous())
            self._version = answer["VersionId"]
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

    def _value(self, stage: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.get_secret_value(SecretId=self._policy.secret, VersionStage=stage)
        return answer

    def _previous(self) -> tuple[FoundKey, ...]:
        """Welcome where there is one and it is a key; the current one has to do without it otherwise."""
        from botocore.exceptions import ClientError

        try:
            return (self._key_in(self._value(_PREVIOUS), _PREVIOUS),)
        except (ClientError, KeyUnusable):
            return ()

    def _key_in(self, answer: dict[str, Any], stage: str) -> FoundKey:
        name = f"{self.name}@{stage}"
        text = answer.get("SecretString")
        if self._policy.field and isinstance(text, str):
            text = _field_of(text, self._policy.field)
        if not isinstance(text, str):
            where = f" in the field {self._policy.field}" if self._policy.field else ""
            raise KeyUnusable(name, f"cannot be had: there is no text{where}")
        return FoundKey(ApiKey.parse(text, name), answer["CreatedDate"].timestamp())

    def _unusable(self, fault: str) -> KeyUnusable:
        return KeyUnusable(self.name, f"cannot be had: {fault}")


def _field_of(text: str, name: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value.get(name) if isinstance(value, dict) else None
