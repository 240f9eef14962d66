"""Converts the settings to the sources of the API key."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Final

from nanonets_proxy.keys.source import KeySource, KeySourceConfig, key_variable
from nanonets_proxy.keys.vault_policy import TOKEN_VARIABLE, VaultAuth, VaultPolicy
from nanonets_proxy.settings.loaded import LoadedSettings
from nanonets_proxy.settings.model.proxy import Settings
from nanonets_proxy.settings.sources import flag_name

_SECRET_SETTINGS: Final = ("coordination", "egress_proxy", "webhook_url")


def key_source_config(settings: Settings, environ: Mapping[str, str], environment: str = "") -> KeySourceConfig:
    """Returns the sources of the key of `environment`. `environ` may hold a store's login credential."""
    return KeySourceConfig(environment, settings.api_key_file, tuple(_stores(settings, environ)))


def secret_variables(environments: Iterable[str]) -> tuple[str, ...]:
    """Returns the variables that may hold a secret. Nothing reads them after the sources are made."""
    keys = map(key_variable, ["", *environments])
    prefix = Settings.model_config["env_prefix"]
    return (*keys, TOKEN_VARIABLE, *(f"{prefix}{name}".upper() for name in _SECRET_SETTINGS))


def secret_flags(loaded: LoadedSettings[Settings]) -> tuple[str, ...]:
    """Returns the settings whose value holds a secret and is on the command line, which all users can see."""
    values = {name: getattr(loaded.settings, name) for name in _SECRET_SETTINGS}
    return tuple(
        name
        for name, value in values.items()
        if value is not None and value.secrets() and loaded.sources.get(name) == f"flag {flag_name(name)}"
    )


def _stores(settings: Settings, environ: Mapping[str, str]) -> list[KeySource]:
    """Returns the configured stores. Their modules are imported only for them: few programs use a store."""
    stores: list[KeySource] = []
    refresh_s, timeout_s = settings.key_refresh, settings.key_timeout
    if settings.api_key_command:
        from nanonets_proxy.keys.command import CommandKey, environment_of_command

        variables = environment_of_command(settings.api_key_command_variables, environ)
        command = tuple(shlex.split(settings.api_key_command))
        stores.append(CommandKey(command, refresh_s, timeout_s, variables))
    if settings.vault_path:
        from nanonets_proxy.keys.vault import VaultKey

        stores.append(VaultKey(_vault_policy(settings, environ)))
    if settings.aws_secret:
        from nanonets_proxy.keys.aws import AwsKey, AwsPolicy

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


def _vault_policy(settings: Settings, environ: Mapping[str, str]) -> VaultPolicy:
    return VaultPolicy(
        address=str(settings.vault_address),
        mount=settings.vault_mount.strip("/"),
        path=settings.vault_path.strip("/"),
        secret_field=settings.vault_field,
        auth=settings.vault_auth,
        auth_mount=settings.vault_auth_mount.strip("/"),
        role=settings.vault_role,
        credential_file=settings.vault_credential_path(),
        token=environ.get(TOKEN_VARIABLE) if settings.vault_auth == VaultAuth.TOKEN else None,
        namespace=settings.vault_namespace,
        ca_file=settings.vault_ca_file,
        refresh_s=settings.key_refresh,
        timeout_s=settings.key_timeout,
    )
