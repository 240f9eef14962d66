#!/bin/sh
# Installs the container tools for `make test-system` from Debian, and makes a base image in a separate store.
#
#   tests/system/setup.sh DIRECTORY
#
# DIRECTORY holds configuration and images; the machine's own container storage stays unchanged. A second run
# changes nothing.
set -eu

fail() {
    echo "setup.sh: $1" >&2
    exit 1
}

[ $# -eq 1 ] || fail "name the directory to use"
[ "$(id -u)" -eq 0 ] || fail "the system tests need root"
mkdir -p "$1"
dir=$(cd "$1" && pwd)

# Any kubectl has `kustomize`, which is all that the tests use of it.
kubectl=""
command -v kubectl >/dev/null || kubectl="kubernetes-client"
packages="$kubectl aardvark-dns buildah catatonit chromium curl default-jdk-headless iproute2 iptables mmdebstrap netavark podman runc slirp4netns"
missing=""
for package in $packages; do
    dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
        missing="$missing $package"
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

# The server of this package would start as a service, so only its programs are taken.
if [ ! -x "$dir/prometheus" ]; then
    apt-cache show prometheus >/dev/null 2>&1 || apt-get update -qq
    (cd "$dir" && apt-get download -qq prometheus 2>"$dir/apt.log" && dpkg -x prometheus_*.deb unpacked) || {
        cat "$dir/apt.log" >&2
        fail "apt-get could not download: prometheus"
    }
    mv "$dir/unpacked/usr/bin/prometheus" "$dir/unpacked/usr/bin/promtool" "$dir"
    rm -r "$dir/unpacked" "$dir"/prometheus_*.deb
fi

# runc and cgroupfs also work without systemd. The limits suit a small machine.
cat >"$dir/containers.conf" <<END
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
END
# runroot must have a short path that differs between checkouts.
cat >"$dir/storage.conf" <<END
[storage]
driver = "overlay"
graphroot = "$dir/storage"
runroot = "/run/nanonets-proxy-test-$(printf %s "$dir" | cksum | cut -d ' ' -f 1)"
END
export CONTAINERS_CONF="$dir/containers.conf" CONTAINERS_STORAGE_CONF="$dir/storage.conf"

# Earlier runs leave layers, and a run that was killed leaves containers whose network namespaces may be gone.
podman rm --all --force --time=0 >/dev/null 2>&1 || true
podman image prune --force >/dev/null

# Replaces the Dockerfile's base image by Debian packages, so that no image registry is needed.
base=localhost/python:3.13-slim
if ! podman image exists "$base"; then
    # shellcheck disable=SC2016  # mmdebstrap's hook expands it
    mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv \
        --customize-hook='ln -s python3 "$1/usr/bin/python"' trixie "$dir/base.tar" ||
        fail "mmdebstrap could not make the base image"
    podman import --quiet --change 'CMD ["python3"]' "$dir/base.tar" "$base" >/dev/null
    rm "$dir/base.tar"
fi

# The Redis of deploy/compose/fleet.yaml, likewise.
redis=localhost/redis:8
if ! podman image exists "$redis"; then
    mmdebstrap --quiet --variant=minbase --include=redis-server trixie "$dir/redis.tar" ||
        fail "mmdebstrap could not make the Redis image"
    podman import --quiet --change 'CMD ["redis-server"]' "$dir/redis.tar" "$redis" >/dev/null
    rm "$dir/redis.tar"
fi
