#!/bin/sh
# Installs the peers of `make bench`: programs from Debian, and packages from PyPI by requirements/bench.txt.
#
#   bench/speed/setup.sh DIRECTORY
#
# Stops the services that Debian starts on installation; the benchmark starts its own processes.
set -eu

fail() {
    echo "setup.sh: $1" >&2
    exit 1
}

[ $# -eq 1 ] || fail "name the directory to use"
mkdir -p "$1"
requirements=$(dirname "$0")/../../requirements/bench.txt

for package in nginx-light haproxy wrk; do
    dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed && continue
    command -v apt-get >/dev/null || fail "$package is missing, and so is apt-get"
    [ "$(id -u)" -eq 0 ] || fail "installing $package needs root"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package"; } \
        >"$1/apt.log" 2>&1 || {
        cat "$1/apt.log" >&2
        fail "apt-get could not install $package"
    }
    service=${package%-light}
    [ ! -e "/etc/init.d/$service" ] || service "$service" stop >/dev/null 2>&1 || fail "the service of $package could not be stopped"
done

# Rebuild the environment when the lock has changed.
venv="$1/venv"
if ! cmp -s "$requirements" "$venv/lock.txt"; then
    rm -rf "$venv"
    "${PYTHON:-python3}" -m venv "$venv"
    # --no-deps: the lock is complete, and overrides a requirement of one package.
    "$venv/bin/python" -m pip --quiet --disable-pip-version-check install --no-deps --require-hashes \
        --only-binary :all: -r "$requirements"
    cp "$requirements" "$venv/lock.txt"
fi
