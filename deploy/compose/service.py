# noqa: INP001 - a script that is mounted into a container, not part of a package
"""A sample service without a key: lists the workflows every few seconds through the proxy.

python service.py [HOST [TOKEN_FILE]]

HOST is the proxy's, by default localhost. A shared proxy asks for a token, which is in TOKEN_FILE.
"""

import http.client
import json
import logging
import sys
import time
from pathlib import Path

PORT = 8080
TARGET = "/api/v4/workflows"
EVERY_S = 3.0
TIMEOUT_S = 330.0  # the proxy may hold a request for that long while the API's rate limit is used up

log = logging.getLogger("service")


def call(host: str, fields: dict[str, str]) -> str:
    """Sends one request with these header fields, and returns a line about its response."""
    connection = http.client.HTTPConnection(host, PORT, timeout=TIMEOUT_S)
    try:
        connection.request("GET", TARGET, headers=fields)
        response = connection.getresponse()
        size_bytes = len(response.read())
    finally:
        connection.close()
    return json.dumps({"target": TARGET, "status": response.status, "bytes": size_bytes})


def main(host: str = "localhost", token_file: str = "") -> None:
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    fields = {"Authorization": f"Bearer {Path(token_file).read_text().strip()}"} if token_file else {}
    while True:
        try:
            log.info(call(host, fields))
        except OSError as error:
            log.info("the proxy does not respond on port %d (its log may say why): %s", PORT, error)
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
