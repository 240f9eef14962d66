# noqa: INP001 - a script that is mounted into a container, no package
"""A sample service: it lists the workflows every few seconds, through the proxy beside it, and holds no key."""

import http.client
import json
import logging
import sys
import time

PROXY = ("localhost", 8080)
TARGET = "/api/v4/workflows"
EVERY_S = 3.0
TIMEOUT_S = 330.0  # the proxy may hold a call back while the API's rate limit is used up

log = logging.getLogger("service")


def call() -> str:
    """One call, and a line about its answer."""
    connection = http.client.HTTPConnection(*PROXY, timeout=TIMEOUT_S)
    try:
        connection.request("GET", TARGET)
        response = connection.getresponse()
        size_bytes = len(response.read())
    finally:
        connection.close()
    return json.dumps({"target": TARGET, "status": response.status, "bytes": size_bytes})


def main() -> None:
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    while True:
        try:
            log.info(call())
        except OSError as error:
            # The proxy lives in this container's network, so it starts a moment after it.
            log.info("no proxy on port %d yet: %s", PROXY[1], error)
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main()
