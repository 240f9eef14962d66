"""The key in HashiCorp Vault or OpenBao: KV version 2, by token, AppRole or Kubernetes authentication.

Logged in until two thirds of the lease are over; then, or when permission is denied, logged in anew. A
token that was given is renewed instead, where it allows that.
"""

import time
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nanonets_proxy.core.keys.api_key import ApiKey, KeyUnusable
from nanonets_proxy.core.keys.key_records import FoundKey
from nanonets_proxy.keys.change_watch import ChangeWatch, PeriodicWatch
from nanonets_proxy.keys.files import FileUnreadable, read_small_file

if TYPE_CHECKING:
    import hvac

TOKEN_VARIABLE: Final = "VAULT_TOKEN"  # noqa: S105 - the name of a variable, no secret
_LEASE_SHARE: Final = 2 / 3
_SOONEST_S: Final = 1.0


class VaultAuth(StrEnum):
    TOKEN = "token"  # noqa: S105 - the name of a method, no secret
    APPROLE = "approle"
    KUBERNETES = "kubernetes"


@dataclass(frozen=True, slots=True)
class VaultPolicy:
    """`role`: the role id for AppRole, the role's name for Kubernetes. `credential_file`: holds the token, the
    secret id or the service account's token; `token` stands in for it."""

    address: str
    mount: str
    path: str
    secret_field: str
    auth: VaultAuth
    auth_mount: str
    role: str
    credential_file: Path | None
    namespace: str
    ca_file: Path | None
    refresh_s: float
    timeout_s: float
    token: str | None = field(default=None, repr=False)


class VaultKey:
    """Asks the server at each `read`."""

    def __init__(self, policy: VaultPolicy) -> None:
        self._policy = policy
        self._client: hvac.Client | None = None
        self._login_again_at_s = float("inf")

    @property
    def name(self) -> str:
        return f"vault:{self._policy.mount}/{self._policy.path}"

    def watch(self) -> ChangeWatch:
        return PeriodicWatch(self._next_read_s)

    def _next_read_s(self) -> float:
        # A lease that is shorter than the refresh must not run out in between.
        return max(_SOONEST_S, min(self._policy.refresh_s, self._login_again_at_s - time.monotonic()))

    def read(self) -> tuple[FoundKey, ...]:
        """Asks for the latest version of the secret; blocks for some multiple of `timeout_s` at most.

        Raises:
            KeyUnusable: the server cannot be reached or refuses, or what it holds is no key.
        """
        try:
            import hvac
            import requests
        except ImportError:
            raise KeyUnusable(
                self.name, "cannot be had: install the extra it needs, nanonets-proxy[vault]"
            ) from None
        try:
            answer = self._ask()
        except hvac.exceptions.InvalidPath:
            raise self._unusable("nothing is there, or its latest version is deleted") from None
        except hvac.exceptions.Forbidden:
            raise self._unusable("permission is denied") from None
        except hvac.exceptions.Unauthorized:
            raise self._unusable("the login is refused") from None
        except hvac.exceptions.InvalidRequest:
            raise self._unusable("the login or the request is refused as invalid") from None
        except hvac.exceptions.VaultDown:
            raise self._unusable("the server is sealed or down") from None
        except hvac.exceptions.VaultError as error:
            raise self._unusable(f"the server fails ({type(error).__name__})") from None
        except requests.exceptions.SSLError:
            raise self._unusable("the server's certificate is not trusted; see vault_ca_file") from None
        except (requests.exceptions.RequestException, OSError, ValueError) as error:
            raise self._unusable(f"the server cannot be reached ({type(error).__name__})") from None
        return (self._key_in(answer),)

    def _ask(self) -> dict[str, Any]:
        import hvac

        is_new = self._client is None
        client = self._logged_in()
        try:
            return self._read_with(client)
        except hvac.exceptions.Forbidden:
            if is_new:
                raise
            self._client = None  # the login may have been revoked
            return self._read_with(self._logged_in())

    def _read_with(self, client: "hvac.Client") -> dict[str, Any]:
        policy = self._policy
        answer: dict[str, Any] = client.secrets.kv.v2.read_secret_version(
            policy.path, mount_point=policy.mount, raise_on_deleted_version=True
        )
        return answer

    def _key_in(self, answer: dict[str, Any]) -> FoundKey:
        data, metadata = answer["data"]["data"], answer["data"]["metadata"]
        name = f"{self.name}@{metadata['version']}"
        text = data.get(self._policy.secret_field)
        if not isinstance(text, str):
            raise KeyUnusable(name, f"cannot be had: there is no text in the field {self._policy.secret_field}")
        return FoundKey(ApiKey.parse(text, name), _moment(metadata["created_time"]))

    # --- the login ----------------------------------------------------------------------------

    def _logged_in(self) -> "hvac.Client":
        if self._client is None or (
            time.monotonic() >= self._login_again_at_s and not (self._is_by_token and self._renew(self._client))
        ):
            self._client = self._log_in()
        return self._client

    @property
    def _is_by_token(self) -> bool:
        return self._policy.auth is VaultAuth.TOKEN

    def _log_in(self) -> "hvac.Client":
        import hvac

        policy = self._policy
        client = hvac.Client(
            url=policy.address,
            namespace=policy.namespace or None,
            timeout=policy.timeout_s,
            verify=True if policy.ca_file is None else str(policy.ca_file),
        )
        credential = self._credential()
        mount = policy.auth_mount or policy.auth.value
        match policy.auth:
            case VaultAuth.TOKEN:
                client.token = credential
                self._note_lease(self._token_ttl_s(client))
            case VaultAuth.APPROLE:
                self._note_lease(_lease_s(client.auth.approle.login(policy.role, credential, mount_point=mount)))
            case VaultAuth.KUBERNETES:
                self._note_lease(_lease_s(client.auth.kubernetes.login(policy.role, credential, mount_point=mount)))
        return client

    def _credential(self) -> str:
        policy = self._policy
        if policy.credential_file is None:
            if policy.token is None:
                raise self._unusable(f"neither {TOKEN_VARIABLE} nor vault_credential_file is set")
            return policy.token
        try:
            return read_small_file(policy.credential_file).strip()
        except FileUnreadable as error:
            raise self._unusable(f"the file {policy.credential_file} (vault_credential_file) {error}") from None

    def _token_ttl_s(self, client: "hvac.Client") -> float:
        import hvac

        try:
            answer = client.auth.token.lookup_self()
        except hvac.exceptions.Forbidden:
            return 0.0  # a token may be denied the look at itself, and still read
        return float(answer["data"].get("ttl") or 0)

    def _renew(self, client: "hvac.Client") -> bool:
        import hvac

        try:
            self._note_lease(_lease_s(client.auth.token.renew_self()))
        except (hvac.exceptions.Forbidden, hvac.exceptions.InvalidRequest):
            return False  # the file may hold another one by now
        return True

    def _note_lease(self, lease_s: float) -> None:
        """0: it never ends."""
        self._login_again_at_s = time.monotonic() + lease_s * _LEASE_SHARE if lease_s else float("inf")

    def _unusable(self, fault: str) -> KeyUnusable:
        return KeyUnusable(self.name, f"cannot be had from {self._policy.address}: {fault}")


def _lease_s(answer: Any) -> float:
    return float(answer["auth"]["lease_duration"] or 0)


def _moment(text: str) -> float:
    """RFC 3339 with nanoseconds, as the server writes it; the fraction is of no interest."""
    return datetime.fromisoformat(f"{text[:19]}+00:00").timestamp()
