#!/bin/sh
# Makes a Debian root that can be booted; with `service`, the program is in /opt/nanonets-proxy, with its units.
#
#   tests/system/setup_systemd.sh CACHE ROOT plain|service
#
# Debian 13, because Type=notify-reload needs systemd 253. CACHE keeps the plain root for the next run.
set -eu
cache=$1
root=$2
content=$3
packages=""
for package in mmdebstrap systemd-container; do
    dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
        packages="$packages $package"
done
if [ -n "$packages" ]; then
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
fi
mkdir -p "$cache" "$root"
if [ ! -f "$cache/debian-13.tar" ]; then
    mmdebstrap --quiet --variant=minbase --include=ca-certificates,curl,dbus,python3,python3-venv,systemd,systemd-sysv \
        trixie "$cache/unfinished.tar"
    mv "$cache/unfinished.tar" "$cache/debian-13.tar"
fi
tar -C "$root" -xpf "$cache/debian-13.tar" --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*'
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp /etc/hosts "$root/etc/hosts"

# How pip reaches its index is this machine's affair.
python3 -m pip config list | python3 -c '
import ast, sys
kept = {"cert", "client-cert", "default-timeout", "index-url", "proxy", "timeout", "trusted-host"}
for line in sys.stdin:
    name, _, value = line.partition("=")
    option = name.rpartition(".")[2]
    if option in kept:
        print(option.removeprefix("default-"), "=", ast.literal_eval(value.strip()))
' | sort -u | sed '1i[global]' >"$root/etc/pip.conf"
certificates=$(sed -n 's/^cert = //p' "$root/etc/pip.conf")
if [ -n "$certificates" ]; then
    mkdir -p "$root$(dirname "$certificates")"
    cp "$certificates" "$root$certificates"
fi

[ "$content" = service ] || exit 0
mkdir -p "$root/srv/source"
git ls-files -z proxy requirements pyproject.toml README.md LICENSE | tar -c --null -T - | tar -x -C "$root/srv/source"
pip="/opt/nanonets-proxy/bin/pip --quiet --disable-pip-version-check install"
chroot "$root" sh -euc "
    python3 -m venv /opt/nanonets-proxy
    $pip --require-hashes -r /srv/source/requirements/run.txt
    $pip --require-hashes -r /srv/source/requirements/build.txt
    $pip --no-deps --no-build-isolation /srv/source"
cp deploy/systemd/*.service deploy/systemd/*.socket "$root/etc/systemd/system/"
mkdir -p "$root/etc/nanonets-proxy"
: >"$root/etc/nanonets-proxy/nanonets_api_key"
chmod 600 "$root/etc/nanonets-proxy/nanonets_api_key"
ln -sf /etc/systemd/system/nanonets-proxy.service "$root/etc/systemd/system/multi-user.target.wants/"
