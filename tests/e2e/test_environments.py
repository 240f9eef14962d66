"""Two environments in one process, which share nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.commands.process import environment, running, sandbox
from support.commands.restarts import ending_successors, restarted

Call = Callable[..., tuple[int, dict[str, str], Any]]
PATH = "/api/v4/workflows"


def test_each_environment_has_its_own_key_upstream_gate_and_metrics(call: Call, tmp_path: Path) -> None:
    (tmp_path / "staging-file").write_text("staging-key")
    with sandbox(key="prod-key") as prod, sandbox("--limit", "1/1h", key="staging-key") as staging:
        config = tmp_path / "settings.toml"
        config.write_text(
            f'admin_listen = "127.0.0.1:0"\nlisten = "127.0.0.1:0"\n'
            f'[environments.prod]\nupstream = "{prod}"\n'
            f'[environments.staging]\nupstream = "{staging}"\napi_key_file = "{tmp_path / "staging-file"}"\n'
        )
        env = environment(NANONETS_API_KEY_PROD="prod-key")
        with running(["serve", "--config", str(config)], env, is_forked=True) as proxy:
            started = {name: proxy.wait_for("started", environment=name) for name in ("prod", "staging")}
            urls = {name: f"http://{event['listen'][0]}" for name, event in started.items()}
            admin = f"http://{started['prod']['admin_listen'][0]}"
            assert started["staging"]["admin_listen"] == started["prod"]["admin_listen"]

            assert call(f"{urls['prod']}{PATH}", "POST", json.dumps({"description": "of prod"}))[0] in (200, 201)
            assert call(f"{urls['staging']}{PATH}")[::2] == (200, {"workflows": []})
            assert call(f"{urls['staging']}{PATH}", Prefer="wait=0")[0] == 429
            assert call(f"{urls['prod']}{PATH}")[0] == 200, "the closed gate of one is not the other's"

            metrics = call(f"{admin}/metrics")[2].decode()
            assert 'nanonets_proxy_upstream_throttled_total{environment="staging"} 1.0' in metrics
            assert 'nanonets_proxy_upstream_throttled_total{environment="prod"} 0.0' in metrics
            assert metrics.count("# TYPE nanonets_proxy_ready gauge") == 1
            assert metrics.count("# TYPE process_open_fds gauge") == 1

            status, _, ready = call(f"{admin}/readyz")
            assert (status, ready["status"]) == (200, "ready")
            assert [ready["environments"][name]["key"]["source"] for name in ("prod", "staging")] == [
                "env:NANONETS_API_KEY_PROD",
                f"file:{tmp_path / 'staging-file'}",
            ]

            (tmp_path / "staging-file").unlink()
            status, _, reloaded = call(f"{admin}/reload", "POST")
            assert status == 503
            assert [part["status"] for part in reloaded["environments"].values()] == ["reloaded", "not reloaded"]
            assert proxy.end() == 0
    assert {event["environment"] for event in proxy.all_events() if event["event"] == "stopped"} == {
        "prod",
        "staging",
    }


def test_docstrange_beside_nanonets_each_with_its_own_key_and_scheme(call: Call, tmp_path: Path) -> None:
    with sandbox(key="nanonets-key") as nanonets, sandbox("--limit", "1/1day", key="docstrange-key") as docstrange:
        config, fixed = tmp_path / "settings.toml", 'admin_listen = "127.0.0.1:0"\nlisten = "127.0.0.1:0"\n'
        own = (
            '[environments.nanonets]\nupstream = "{}"\n'
            '[environments.docs]\npreset = "docstrange"\nupstream = "{}"\n'
        )
        config.write_text(fixed + own.format(nanonets, docstrange))
        keys = {"NANONETS_API_KEY_NANONETS": "nanonets-key", "NANONETS_API_KEY_DOCS": "docstrange-key"}
        document = json.dumps({"document_url": "https://example.com/a.pdf"})
        fields = {"Content-Type": "application/json", "Prefer": "wait=1"}
        with running(["serve", "--config", str(config)], environment(**keys), is_forked=True) as proxy:
            started = {name: proxy.wait_for("started", environment=name) for name in ("nanonets", "docs")}
            urls = {name: f"http://{event['listen'][0]}" for name, event in started.items()}
            admin = f"http://{started['docs']['admin_listen'][0]}"
            status, _, extracted = call(f"{urls['docs']}/api/v1/extract/sync", "POST", document, **fields)
            assert (status, extracted["status"]) == (200, "completed")
            assert call(f"{urls['nanonets']}{PATH}")[0] == 200

            # The daily 429 closes extraction until tomorrow, but results are there.
            status, headers, refused = call(f"{urls['docs']}/extract", "POST", document, **fields)
            assert (status, refused) == (429, {"detail": "Daily rate limit exceeded. Please try again tomorrow."})
            status, headers, refused = call(f"{urls['docs']}/extract", "POST", document, **fields)
            assert (status, "quota_used_up" in headers["proxy-status"]) == (429, True)
            # The second request showed that the quota concerns not only the first one. No other is sent.
            assert call(f"{urls['docs']}/extract", "POST", document, **fields)[0] == 429
            assert call(f"{docstrange}/sandbox/stats")[2]["refused"] == 2
            results = call(f"{urls['docs']}/api/v1/extract/results/{extracted['record_id']}")
            assert (results[0], results[2]["status"]) == (200, "completed")

            # A reload exchanges the upstreams in the file, but not those of the keys.
            config.write_text(fixed + own.format(docstrange, nanonets))
            status, _, reloaded = call(f"{admin}/reload", "POST")
            changed = set(reloaded["settings"]["needs_restart"])
            assert changed == {"environments.nanonets.upstream", "environments.docs.upstream"}
            assert call(f"{urls['nanonets']}{PATH}")[0] == 200
            assert call(f"{urls['docs']}/api/v1/extract/results")[0] == 200
            metrics = call(f"{admin}/metrics")[2].decode()
            assert 'route="/api/v1/extract/results/{record}"' in metrics
            assert proxy.end() == 0
        for upstream in (nanonets, docstrange):
            assert call(f"{upstream}/sandbox/stats")[2]["unauthorized"] == 0


def test_a_restart_gives_each_environment_key_and_scheme_of_its_upstream(call: Call, tmp_path: Path) -> None:
    """The two environments exchange their upstreams and keys in the file. Only the restart applies that, whole."""
    with sandbox(key="nanonets-key") as nanonets, sandbox("--limit", "none", key="docstrange-key") as docstrange:
        config = tmp_path / "settings.toml"
        files = {name: tmp_path / name for name in ("nanonets-key", "docstrange-key")}
        for name, file in files.items():
            file.write_text(name)
            file.chmod(0o600)
        first = f'upstream = "{nanonets}"\napi_key_file = "{files["nanonets-key"]}"\n'
        second = f'preset = "docstrange"\nupstream = "{docstrange}"\napi_key_file = "{files["docstrange-key"]}"\n'

        def write(one: str, other: str) -> None:
            fixed = 'admin_listen = "127.0.0.1:0"\nlisten = "127.0.0.1:0"\n'
            config.write_text(f"{fixed}[environments.one]\n{one}[environments.other]\n{other}")

        results = "/api/v1/extract/results"
        write(first, second)
        with (
            running(["serve", "--config", str(config)], environment(), is_forked=True) as proxy,
            ending_successors(proxy),
        ):
            one, other = (
                f"http://{proxy.wait_for('started', environment=name)['listen'][0]}" for name in ("one", "other")
            )
            assert (call(one + PATH)[0], call(other + results)[0]) == (200, 200)
            restarted(proxy)
            assert (call(one + PATH)[0], call(other + results)[0]) == (200, 200)
            write(second, first)
            assert call(f"{proxy.admin_url}/reload", "POST")[0] == 200
            assert (call(one + PATH)[0], call(other + results)[0]) == (200, 200), "a reload exchanges neither"
            restarted(proxy)
            assert (call(one + results)[0], call(other + PATH)[0]) == (200, 200)
        for upstream in (nanonets, docstrange):
            assert call(f"{upstream}/sandbox/stats")[2]["unauthorized"] == 0


def test_an_inherited_key_for_two_upstreams_is_an_error_of_serve_and_check(tmp_path: Path) -> None:
    with sandbox("--limit", "none") as nanonets, sandbox("--limit", "none") as docstrange:
        config, key = tmp_path / "settings.toml", tmp_path / "key"
        key.write_text("nanonets-key")
        config.write_text(
            f'admin_listen = "off"\nlisten = "127.0.0.1:0"\napi_key_file = "{key}"\n'
            f'[environments.nanonets]\nupstream = "{nanonets}"\n'
            f'[environments.docs]\npreset = "docstrange"\nupstream = "{docstrange}"\n'
        )
        sentence = (
            f"the API key of file:{key} is for {docstrange} (bearer), and for {nanonets} (basic) too (file:{key}): "
            "a key goes to one upstream, so each of these environments needs its own"
        )
        with running(["serve", "--config", str(config)], environment(), is_forked=True) as proxy:
            assert proxy.wait() == 2
        assert proxy.stderr.decode() == f"nanonets-proxy: {sentence}\n"
        with running(["check", "--config", str(config)], environment(), is_forked=True) as check:
            assert check.wait() == 1
        assert sentence in check.stdout.decode()


def test_the_error_for_a_busy_address_names_the_environment(tmp_path: Path) -> None:
    with sandbox() as upstream:
        config = tmp_path / "settings.toml"
        busy = upstream.removeprefix("http://")
        config.write_text(
            f'admin_listen = "off"\n[environments.prod]\nlisten = "127.0.0.1:0"\nupstream = "{upstream}"\n'
            f'[environments.staging]\nlisten = "{busy}"\nupstream = "{upstream}"\n'
        )
        env = environment(NANONETS_API_KEY_PROD="key-of-prod", NANONETS_API_KEY_STAGING="key-of-staging")
        with running(["serve", "--config", str(config)], env, is_forked=True) as proxy:
            assert proxy.wait() == 2
        assert proxy.stderr.decode() == f"nanonets-proxy: environments.staging.listen: {busy} is already in use\n"
