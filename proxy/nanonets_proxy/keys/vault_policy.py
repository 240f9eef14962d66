"""The parameters of a key in Vault."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

TOKEN_VARIABLE: Final = "VAULT_TOKEN"  # noqa: S105 - the name of a variable, not a secret


class VaultAuth(StrEnum):
    TOKEN = "token"  # noqa: S105 - the name of a method, not a secret
    APPROLE = "approle"
    KUBERNETES = "kubernetes"


@dataclass(frozen=True, slots=True)
class VaultPolicy:
    """Where the secret is, and how to log in.

    `role`: the role id for AppRole, the role's name for Kubernetes. `credential_file`: holds the token, the
    secret id or the service account's token. `token`: the token itself, if there is no such file.
    """

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
