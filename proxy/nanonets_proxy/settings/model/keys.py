"""The settings of the key: where it comes from, and how a change of it goes."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from nanonets_proxy.keys.vault import VaultAuth
from nanonets_proxy.settings.model.base import ProgramSettings
from nanonets_proxy.settings.model.fields import CommandLine, OptionalOrigin, OptionalPath, PathAndQuery, Text
from nanonets_proxy.settings.model.quantities import Delay, Duration, Metavar, OneOf, Switch


class KeySettings(ProgramSettings):
    """One source of the key may be given. Without one, secret files are looked for."""

    api_key_file: OptionalPath = Field(
        None,
        description="File that holds the API key, watched for change. NANONETS_API_KEY_FILE names it as well.",
    )
    api_key_command: CommandLine = Field(
        "",
        description="Program that prints the API key, with its arguments, quoted as for a shell. It runs without "
        "one, every key_refresh.",
    )
    sandbox: Switch = Field(
        default=False, description="Serve the embedded simulated API instead of the upstream; needs no key."
    )

    key_gap: Delay = Field(
        5.0,
        description="How long requests are held when the upstream refuses every known key, for a new one to "
        "come; after that callers get the upstream's own 401.",
    )
    key_grace: Duration = Field(
        900.0, description="How long a replaced key is kept, for the case that the new one stops working."
    )
    key_probe: PathAndQuery = Field(
        "",
        description="Path to try a new key on with a GET, such as /api/v4/workflow_types. Empty: the next "
        "request that is cheap to repeat tries it.",
    )
    key_refresh: Duration = Field(
        60.0, description="How often a command, Vault or AWS is asked for the key. Files are watched instead."
    )
    key_timeout: Duration = Field(
        10.0, description="Longest time that a command may take, or one call of Vault or AWS."
    )
    key_max_age: Delay = Field(
        90 * 86400.0, description="Age of a key from which on a warning says to rotate it; 0 for never."
    )

    vault_path: Text = Field("", description="Path of the secret below vault_mount, such as nanonets/prod.")
    vault_address: OptionalOrigin = Field(
        None, description="URL of the server. Plain http is refused except to loopback."
    )
    vault_mount: Text = Field("secret", description="Where the KV engine, version 2, is mounted.")
    vault_field: Text = Field("api_key", description="Field of the secret that holds the key.")
    vault_auth: Annotated[VaultAuth, OneOf(tuple(VaultAuth), VaultAuth), Metavar("METHOD")] = Field(
        VaultAuth.TOKEN, description="How to log in: token, approle or kubernetes."
    )
    vault_auth_mount: Text = Field(
        "", description="Where the method is mounted. Empty: approle or kubernetes, as the method is called."
    )
    vault_role: Text = Field("", description="The role id for approle, the role's name for kubernetes.")
    vault_credential_file: OptionalPath = Field(
        None,
        description="File that holds the token (or set VAULT_TOKEN), the secret id for approle, or the service "
        "account's token for kubernetes; for that one, empty means where pods have it.",
    )
    vault_namespace: Text = Field("", description="Namespace of the server, where it has such.")
    vault_ca_file: OptionalPath = Field(
        None, description="PEM file of the certificate authorities to trust for the server."
    )

    aws_secret: Text = Field("", description="Name or ARN of the secret.")
    aws_secret_field: Text = Field(
        "", description="Field that holds the key, where the secret is JSON. Empty: the secret is the key."
    )
    aws_region: Text = Field("", description="Region. Empty: as the AWS environment or profile has it.")

    def vault_credential_path(self) -> Path | None:
        """The file to log in with."""
        if self.vault_credential_file is None and self.vault_auth is VaultAuth.KUBERNETES:
            return _SERVICE_ACCOUNT_TOKEN
        return self.vault_credential_file


_SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
