"""Opens a page in Chromium by Playwright, and obeys one command per line of standard input.

The environment of the system tests' tools runs it, since only that one has Playwright:

    python page_driver.py URL WIDTH light|dark

Each line is a JSON object. `{"js": EXPRESSION}` returns the value of an expression. `{"wait": EXPRESSION}` waits
until it is true, `{"press": KEY}` presses a key, `{"screenshot": PATH}` takes a picture of the whole page, and
`{"faults": null}` returns errors, console messages and requests to other addresses. Each result is a line of JSON.
"""

import json
import sys
import time
from typing import Any

from playwright.sync_api import Page, sync_playwright

_CHROMIUM = "/usr/bin/chromium"
_WAIT_S = 50.0  # less than the test waits for the driver


def main(url: str, width: str, scheme: str) -> None:
    faults: list[str] = []
    with sync_playwright() as playwright:
        # The tests run as root, which Chromium's own sandbox does not support.
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox", "--no-proxy-server"])
        context = browser.new_context(
            viewport={"width": int(width), "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",
        )
        page = context.new_page()
        page.set_default_timeout(1000 * _WAIT_S)
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("console", lambda message: faults.append(f"console: {message.text}"))
        page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: None if request.url.startswith(url) else faults.append(request.url))
        page.goto(url)
        _write("ready")
        for line in sys.stdin:
            ((command, argument),) = json.loads(line).items()
            result: Any = None
            match command:
                case "js":
                    result = page.evaluate(argument)
                case "wait":
                    _wait(page, argument)
                case "press":
                    page.keyboard.press(argument)
                case "screenshot":
                    page.screenshot(path=argument, full_page=True)
                case "faults":
                    result = faults
            _write(result)
        browser.close()


def _wait(page: Page, expression: str) -> None:
    # Playwright's own wait_for_function needs eval, which the page's policy forbids.
    deadline_s = time.monotonic() + _WAIT_S
    while not page.evaluate(expression):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"is not true within {_WAIT_S} s: {expression}")
        page.wait_for_timeout(20)


def _write(result: Any) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
