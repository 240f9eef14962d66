"""Reads the key from HashiCorp Vault or OpenBao: KV version 2, with token, AppRole or Kubernetes authentication.

After two thirds of a login's lease, or when permission is denied, the proxy logs in again. A configured token is
renewed instead, if the token allows that.
"""

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from nanonets_proxy.core.keys.api_key import ApiKey, KeyUnusable
from nanonets_proxy.core.keys.key_records import FoundKey
from nanonets_proxy.keys.files import FileUnreadable, read_small_file, shown_path
from nanonets_proxy.keys.vault_policy import TOKEN_VARIABLE, VaultAuth, VaultPolicy

if TYPE_CHECKING:
    import hvac

    from nanonets_proxy.keys.change_watch import ChangeWatch

_LEASE_SHARE: Final = 2 / 3
_MIN_WAIT_S: Final = 1.0


class VaultKey:
    """Reads the secret from the server at each reading."""

    def __init__(self, policy: VaultPolicy) -> None:
        self._policy = policy
        self._client: hvac.Client | None = None
        self._next_login_at_s = float("inf")

    @property
    def name(self) -> str:
        return f"vault:{self._policy.mount}/{self._policy.path}"

    def watch(self) -> "ChangeWatch":
        from nanonets_proxy.keys.change_watch import PeriodicWatch  # imported here: as in `FileKey.watch`

        return PeriodicWatch(self._next_read_s)

    def _next_read_s(self) -> float:
        # A lease shorter than the refresh interval must not end before the next reading.
        return max(_MIN_WAIT_S, min(self._policy.refresh_s, self._next_login_at_s - time.monotonic()))

    def read(self) -> tuple[FoundKey, ...]:
        """Reads the latest version of the secret. Blocks for a small multiple of `timeout_s` at most.

        Raises:
            KeyUnusable: the server is unreachable or rejects the request, or the secret is not a key.
        """
        try:
            import hvac
            import requests
        except ImportError:
            raise KeyUnusable(self.name, "is unavailable: install the extra nanonets-proxy[vault]") from None
        try:
            response = self._read()
        except hvac.exceptions.InvalidPath:
            raise self._unusable("the path holds no secret, or its latest version is deleted") from None
        except hvac.exceptions.Forbidden:
            raise self._unusable("permission is denied") from None
        except hvac.exceptions.Unauthorized:
            raise self._unusable("the server rejects the login") from None
        except hvac.exceptions.InvalidRequest:
            raise self._unusable("the server rejects the login or the request as invalid") from None
        except hvac.exceptions.VaultDown:
            raise self._unusable("the server is sealed or down") from None
        except hvac.exceptions.VaultError as error:
            raise self._unusable(f"the server failed ({type(error).__name__})") from None
        except requests.exceptions.SSLError:
            raise self._unusable("the server's certificate is not trusted; see vault_ca_file") from None
        except (requests.exceptions.RequestException, OSError, ValueError) as error:
            raise self._unusable(f"the server cannot be reached ({type(error).__name__})") from None
        return (self._key_from(response),)

    def _read(self) -> dict[str, Any]:
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
        response: dict[str, Any] = client.secrets.kv.v2.read_secret_version(
            policy.path, mount_point=policy.mount, raise_on_deleted_version=True
        )
        return response

    def _key_from(self, response: dict[str, Any]) -> FoundKey:
        data, metadata = response["data"]["data"], response["data"]["metadata"]
        name = f"{self.name}@{metadata['version']}"
        text = data.get(self._policy.secret_field)
        if not isinstance(text, str):
            raise KeyUnusable(name, f"is unavailable: there is no text in the field {self._policy.secret_field}")
        return FoundKey(ApiKey.parse(text, name), _timestamp(metadata["created_time"]))

    # --- the login ----------------------------------------------------------------------------

    def _logged_in(self) -> "hvac.Client":
        if self._client is None or (
            time.monotonic() >= self._next_login_at_s and not (self._uses_token and self._renew(self._client))
        ):
            self._client = self._log_in()
        return self._client

    @property
    def _uses_token(self) -> bool:
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
            shown = shown_path(policy.credential_file)
            raise self._unusable(f"the file {shown} (vault_credential_file) {error}") from None

    def _token_ttl_s(self, client: "hvac.Client") -> float:
        import hvac

        try:
            response = client.auth.token.lookup_self()
        except hvac.exceptions.Forbidden:
            return 0.0  # a token may read secrets without permission to look itself up
        return float(response["data"].get("ttl") or 0)

    def _renew(self, client: "hvac.Client") -> bool:
        import hvac

        try:
            self._note_lease(_lease_s(client.auth.token.renew_self()))
        except (hvac.exceptions.Forbidden, hvac.exceptions.InvalidRequest):
            return False  # the file may hold another token by now
        return True

    def _note_lease(self, lease_s: float) -> None:
        """Notes when to log in again. A lease of 0 never ends."""
        self._next_login_at_s = time.monotonic() + lease_s * _LEASE_SHARE if lease_s else float("inf")

    def _unusable(self, fault: str) -> KeyUnusable:
        return KeyUnusable(self.name, f"is unavailable from {self._policy.address}: {fault}")


def _lease_s(response: Any) -> float:
    return float(response["auth"]["lease_duration"] or 0)


def _timestamp(text: str) -> float:
    """Parses an RFC 3339 time as the server writes it. The fraction, with nanoseconds, is ignored."""
    return datetime.fromisoformat(f"{text[:19]}+00:00").timestamp()
