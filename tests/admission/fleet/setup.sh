#!/bin/sh
# Installs Debian's Redis server, unless there is one, or REDIS_PROGRAM names one. Its service does not start: each test
# runs a server of its own.
set -eu
if [ -n "${REDIS_PROGRAM:-}" ]; then exit 0; fi
if command -v redis-server >/dev/null || command -v valkey-server >/dev/null; then exit 0; fi
policy=/usr/sbin/policy-rc.d
if ! [ -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server
