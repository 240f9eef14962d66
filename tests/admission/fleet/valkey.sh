#!/bin/sh
# Makes the program DIRECTORY/valkey-server, which runs the Valkey of Debian 13. Debian 12 has none.
#
#   tests/admission/fleet/valkey.sh DIRECTORY
#
# It needs root. A second run changes nothing.
set -eu
mkdir -p "$1"
dir=$(cd "$1" && pwd)
if [ -x "$dir/valkey-server" ]; then exit 0; fi
if ! command -v mmdebstrap >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap
fi

rm -rf "$dir/root"
mmdebstrap --quiet --variant=extract --include=valkey-server trixie "$dir/root"
# The loader and the libraries of Debian 13: those of this machine may be older.
loader=$(echo "$dir"/root/usr/lib/*/ld-linux*.so.*)
printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' \
  "$loader" "${loader%/*}" "$dir/root/usr/bin/valkey-server" >"$dir/valkey-server"
chmod 755 "$dir/valkey-server"
