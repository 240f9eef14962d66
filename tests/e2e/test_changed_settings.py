"""A reload reads no settings, and says so if the settings file has changed."""

import json
import signal
import urllib.request
from pathlib import Path

from support.process import Running, proxy_to, sandbox


def reload(proxy: Running) -> dict[str, object]:
    request = urllib.request.Request(
        f"{proxy.admin_url}/reload", method="POST", headers={"X-Requested-With": "test"}
    )
    with urllib.request.urlopen(request) as response:
        body: dict[str, object] = json.load(response)
        return body


def test_a_reload_says_that_the_settings_file_has_changed_and_was_not_read(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("max_wait = 7\n")
    with sandbox() as upstream, proxy_to(upstream, "--config", str(path)) as proxy:
        assert "warning" not in reload(proxy)
        path.write_text("max_wait = 8\n")
        for _ in range(2):
            proxy.process.send_signal(signal.SIGHUP)
            event = proxy.wait_for_next("settings_file_not_read")
            assert (event["level"], event["path"]) == ("warning", str(path))
            assert event["advice"].startswith("restart the proxy")
        assert str(reload(proxy)["warning"]).startswith(f"{path} has changed and was not read; restart the proxy")
        path.write_text("max_wait = 7\n")
        assert "warning" not in reload(proxy)
