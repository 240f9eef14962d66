"""The environment variables of a command beside a proxy."""

import pytest

from nanonets_proxy.process.run.variables import command_variables

TOKEN, URL = "nnp_token", "http://127.0.0.1:4711"


def test_the_command_gets_token_and_address_and_no_variable_that_leads_to_the_key() -> None:
    environ = {
        "PATH": "/bin",
        "NANONETS_API_KEY": "s3cret",
        "NANONETS_API_KEY_FILE": "/key",
        "NANONETS_API_KEY_STAGING": "s3cret",
        "NANONETS_PROXY_API_KEY_COMMAND": "pass show nanonets",
        "nanonets_proxy_max_wait": "1s",
        "NANONETS_MODEL_ID": "m",
        "VAULT_TOKEN": "s3cret",
    }
    assert command_variables(environ, TOKEN, URL, ["VAULT_TOKEN"]) == {
        "PATH": "/bin",
        "NANONETS_MODEL_ID": "m",
        "NANONETS_API_KEY": TOKEN,
        "NANONETS_BASE_URL": URL,
    }


@pytest.mark.parametrize(
    ("environ", "exceptions"),
    [
        ({}, None),
        ({"https_proxy": "http://proxy"}, None),
        ({"HTTP_PROXY": "http://proxy"}, "127.0.0.1"),
        ({"all_proxy": "http://proxy"}, "127.0.0.1"),
        ({"http_proxy": "http://proxy", "no_proxy": "a.example", "NO_PROXY": "a.example"}, "a.example,127.0.0.1"),
        ({"http_proxy": "http://proxy", "no_proxy": "*", "NO_PROXY": "*"}, "*"),
    ],
)
def test_the_token_never_goes_through_a_proxy_of_the_network(
    environ: dict[str, str], exceptions: str | None
) -> None:
    variables = command_variables(environ, TOKEN, URL, [])
    assert (variables.get("no_proxy"), variables.get("NO_PROXY")) == (exceptions, exceptions)
