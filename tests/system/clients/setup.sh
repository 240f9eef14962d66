#!/bin/sh
# Installs the published clients for `make test-system`: those of PyPI and of npm, by the hashes of their locks.
#
#   tests/system/clients/setup.sh DIRECTORY
#
# DIRECTORY holds them, and nothing else changes but Debian's packages. A second run changes nothing.
set -eu

fail() {
    echo "setup.sh: $1" >&2
    exit 1
}

[ $# -eq 1 ] || fail "name the directory to use"
mkdir -p "$1"
dir=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/../../.." && pwd)

missing=""
for program in nodejs:node npm:npm openssl:openssl; do
    command -v "${program#*:}" >/dev/null || missing="$missing ${program%:*}"
done
if [ -n "$missing" ]; then
    command -v apt-get >/dev/null || fail "these Debian packages are missing, and so is apt-get:$missing"
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >"$dir/apt.log" 2>&1 || {
        cat "$dir/apt.log" >&2
        fail "apt-get could not install:$missing"
    }
fi

if ! cmp -s "$root/requirements/clients.txt" "$dir/clients.txt"; then
    "$root/.venv/bin/python" -m venv --clear "$dir/venv"
    "$dir/venv/bin/python" -m pip --quiet --disable-pip-version-check install --require-hashes --only-binary :all: \
        -r "$root/requirements/clients.txt"
    cp "$root/requirements/clients.txt" "$dir/clients.txt"
fi

if ! cmp -s "$root/tests/system/clients/package-lock.json" "$dir/package-lock.json"; then
    cp "$root/tests/system/clients/package.json" "$dir/package.json"
    cp "$root/tests/system/clients/package-lock.json" "$dir/lock.json"
    mv "$dir/lock.json" "$dir/package-lock.json"
    (cd "$dir" && npm ci --silent --ignore-scripts --no-audit --no-fund >"$dir/npm.log" 2>&1) || {
        cat "$dir/npm.log" >&2
        rm "$dir/package-lock.json"
        fail "npm could not install the clients"
    }
fi
