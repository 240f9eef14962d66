"""From the settings to the source of the key."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from nanonets_proxy.keys.aws import AwsKey, AwsPolicy
from nanonets_proxy.keys.command import CommandKey
from nanonets_proxy.keys.source import KeySource, find_key_source, missing_key_message
from nanonets_proxy.keys.vault import TOKEN_VARIABLE, VaultKey, VaultPolicy
from nanonets_proxy.settings.errors import SettingsError
from nanonets_proxy.settings.model import Settings


def key_source(
    settings: Settings, environ: Mapping[str, str], *, dirs: Sequence[Path], environment: str = ""
) -> KeySource:
    """Where the key of `environment` comes from; nothing but the process's environment is read yet.

    Raises:
        KeyUnusable: the environment holds something that is no key, or the key is given twice.
        SettingsError: no key is given, or its source is given by half.
    """
    source = find_key_source(
        environ,
        api_key_file=settings.api_key_file,
        dirs=dirs,
        stores=_stores(settings, environ, f"environments.{environment}." if environment else ""),
        environment=environment,
    )
    if source is None:
        raise SettingsError(missing_key_message(environ, environment))
    return source


def _stores(settings: Settings, environ: Mapping[str, str], prefix: str) -> list[KeySource]:
    stores: list[KeySource] = []
    refresh_s, timeout_s = settings.key_refresh, settings.key_timeout
    if settings.api_key_command:
        stores.append(CommandKey(tuple(shlex.split(settings.api_key_command)), refresh_s, timeout_s))
    if settings.vault_path:
        stores.append(VaultKey(_vault_policy(settings, environ, prefix)))
    if settings.aws_secret:
        stores.append(
            AwsKey(
                AwsPolicy(
                    secret=settings.aws_secret,
                    field=settings.aws_secret_field,
                    region=settings.aws_region,
                    refresh_s=refresh_s,
                    timeout_s=timeout_s,
                )
            )
        )
    return stores


def _vault_policy(settings: Settings, environ: Mapping[str, str], prefix: str) -> VaultPolicy:
    if settings.vault_address is None:
        raise SettingsError(f"{prefix}vault_address: is needed with vault_path")
    needs_role = settings.vault_auth != "token"
    if needs_role and not settings.vault_role:
        raise SettingsError(f"{prefix}vault_role: is needed with vault_auth = {settings.vault_auth}")
    return VaultPolicy(
        address=str(settings.vault_address),
        mount=settings.vault_mount.strip("/"),
        path=settings.vault_path.strip("/"),
        secret_field=settings.vault_field,
        auth=settings.vault_auth,
        auth_mount=settings.vault_auth_mount.strip("/"),
        role=settings.vault_role,
        credential_file=settings.vault_credential_path(),
        token=None if needs_role else environ.get(TOKEN_VARIABLE),
        namespace=settings.vault_namespace,
        ca_file=settings.vault_ca_file,
        refresh_s=settings.key_refresh,
        timeout_s=settings.key_timeout,
    )
