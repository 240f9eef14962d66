"""Settings of the API key: its source and its rotation."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from nanonets_proxy.keys.vault_policy import VaultAuth
from nanonets_proxy.settings.model.base import ProgramSettings
from nanonets_proxy.settings.model.fields import (
    CommandLine,
    OptionalOrigin,
    OptionalPath,
    PathAndQuery,
    SecretPath,
    Text,
    VariablePatterns,
)
from nanonets_proxy.settings.model.quantities import Delay, Duration, Metavar, OneOf, Switch

# Kubernetes mounts the service account's token here.
_SERVICE_ACCOUNT_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class KeySettings(ProgramSettings):
    """At most one source of the key may be configured. Without one, the proxy looks for secret files."""

    api_key_file: SecretPath = Field(
        None,
        description="File that holds the API key; NANONETS_API_KEY_FILE also sets it. The proxy reloads the key "
        "when the file changes.",
    )
    api_key_command: CommandLine = Field(
        "",
        description="Command that prints the API key. Arguments are quoted as for a shell, but no shell runs it. "
        "The proxy runs the command every key_refresh.",
    )
    api_key_command_variables: VariablePatterns = Field(
        (),
        description="Environment variables that api_key_command gets besides PATH, HOME and the like, such as "
        "VAULT_TOKEN or AWS_*. It gets no others, because they may hold other secrets.",
    )
    sandbox: Switch = Field(
        default=False, description="Serve the embedded simulated API instead of the upstream. It needs no key."
    )

    key_gap: Delay = Field(
        5.0,
        description="How long requests wait for a new key when the upstream rejects every known key. After that, "
        "callers get the upstream's 401. A request that alone gets a 401 waits as long, unless another request "
        "shows that the key works. If the key has never worked, or is in the environment, no request waits.",
    )
    key_grace: Duration = Field(
        900.0, description="How long the proxy keeps a replaced key, in case the new key stops working."
    )
    key_probe: PathAndQuery = Field(
        "",
        description="Path for a GET that tests each new key, such as /api/v4/workflow_types. Empty: the next "
        "request without a large body tests the key. The proxy then sends a GET of its own, to /api/v4/workflows, "
        "only if the upstream keeps responding 401 and no other request shows whether the key works.",
    )
    key_refresh: Duration = Field(
        60.0,
        description="How often the proxy reads the key from a command, Vault or AWS. Files are watched instead.",
    )
    key_timeout: Duration = Field(
        10.0, description="Maximum run time of the command, or of one request to Vault or AWS."
    )
    key_max_age: Delay = Field(
        90 * 86400.0,
        description="Age of a key at which a warning asks for its rotation. 0: no warning.",
    )

    vault_path: Text = Field("", description="Path of the secret below vault_mount, such as nanonets/prod.")
    vault_address: OptionalOrigin = Field(
        None, description="URL of the server. Plain http is allowed only to loopback."
    )
    vault_mount: Text = Field("secret", description="Mount path of the KV version 2 engine.")
    vault_field: Text = Field("api_key", description="Field of the secret that holds the key.")
    vault_auth: Annotated[VaultAuth, OneOf(tuple(VaultAuth), VaultAuth), Metavar("METHOD")] = Field(
        VaultAuth.TOKEN, description="Login method: token, approle or kubernetes."
    )
    vault_auth_mount: Text = Field(
        "", description="Mount path of the login method. Empty: the method's name, approle or kubernetes."
    )
    vault_role: Text = Field("", description="Role id for approle, role name for kubernetes.")
    vault_credential_file: SecretPath = Field(
        None,
        description="File that holds the login credential: the token (or set VAULT_TOKEN), the secret id for "
        "approle, or the service account's token for kubernetes. Empty for kubernetes: the standard path in a "
        "pod.",
    )
    vault_namespace: Text = Field("", description="Namespace, on servers that have namespaces.")
    vault_ca_file: OptionalPath = Field(
        None, description="PEM file of the certificate authorities to trust for the server."
    )

    aws_secret: Text = Field("", description="Name or ARN of the secret.")
    aws_secret_field: Text = Field(
        "", description="Field that holds the key, if the secret is JSON. Empty: the whole secret is the key."
    )
    aws_region: Text = Field("", description="Region. Empty: the region of the AWS environment or profile.")

    def vault_credential_path(self) -> Path | None:
        """Returns the file that holds the login credential, or None if no file is configured."""
        if self.vault_credential_file is None and self.vault_auth is VaultAuth.KUBERNETES:
            return _SERVICE_ACCOUNT_TOKEN
        return self.vault_credential_file
