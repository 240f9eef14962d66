# noqa: INP001 - a script that is mounted into a container, not part of a package
"""A sample service without a key: lists the workflows every few seconds through the proxy beside it."""

import http.client
import json
import logging
import sys
import time

PROXY = ("localhost", 8080)
TARGET = "/api/v4/workflows"
EVERY_S = 3.0
TIMEOUT_S = 330.0  # the proxy may hold a request for that long while the API's rate limit is used up

log = logging.getLogger("service")


def call() -> str:
    """Sends one request and returns a line about its response."""
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
            # The proxy joins this container's network, so it starts a moment later.
            log.info("the proxy does not respond on port %d yet (its log may say why): %s", PROXY[1], error)
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main()
