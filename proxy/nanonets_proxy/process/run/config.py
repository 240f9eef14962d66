"""The configuration of a proxy beside a command, made from that of `serve`."""

from dataclasses import replace
from typing import Final

from nanonets_proxy.app.config import AuthorizerConfig, Config, EnvironmentConfig, ServeConfig
from nanonets_proxy.core.access.caller_tokens import CallerToken
from nanonets_proxy.core.net.addresses import TcpListener
from nanonets_proxy.keys.vault import VaultKey
from nanonets_proxy.keys.vault_policy import TOKEN_VARIABLE
from nanonets_proxy.process.run.companion import Companion

CALLER_NAME: Final = "run"
"""The command's name as a caller, in the log, the ledger, budgets and `policy`."""

_QUIET: Final = "warning"
_OF_LISTENERS: Final = frozenset({"listen", "allow_from", "admin_allow_from", "admin_quit"})
_NO_CHECKS: Final = AuthorizerConfig(
    has_token_header=False, rules=(), read_only=False, budgets=(), dry_run=False, tokens=(), tokens_file=None
)


def beside_command(config: Config, companion: Companion) -> ServeConfig:
    """Returns the configuration of a proxy for the command only: one listener, one token, no admin listener.

    `config` has one environment. The companion learns which variables give access to its key.

    The log has warnings and errors, unless a level is set: it shares standard error with the command.
    """
    assert isinstance(config, ServeConfig)
    (own,) = config.environments
    companion.hidden_variables = _variables_of_key_source(own)
    token = CallerToken.of(CALLER_NAME, companion.take_token())
    host, port = companion.listener.getsockname()
    own = replace(
        own,
        listen=(TcpListener(host, port),),
        tls=None,
        guard=replace(own.guard, allow_from=(), any_peer=False),
        authorizer=replace(own.authorizer or _NO_CHECKS, has_token_header=False, tokens=(token,), tokens_file=None),
        handler=replace(own.handler, credentials_header="authorization", caller_header="", tls=False),
        permissive_settings={
            name: value for name, value in own.permissive_settings.items() if name not in _OF_LISTENERS
        },
        state_file=None,  # it belongs to one proxy, and this one may run beside others with the same settings
        jobs=None,  # a job may outlast the command
        environments=1,
    )
    return replace(
        config,
        environments=(own,),
        admin_listen=(),
        drain_delay_s=0.0,
        drain_timeout_s=0.0,
        log_level=config.log_level if "log_level" in config.given[""] else _QUIET,
    )


def _variables_of_key_source(config: EnvironmentConfig) -> tuple[str, ...]:
    """Returns the variables with which a process could read the key from the same store."""
    is_vault = any(isinstance(store, VaultKey) for store in config.key_source_config.stores)
    return (TOKEN_VARIABLE,) if is_vault else ()
