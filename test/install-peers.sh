#!/bin/sh
# Installs the Debian packages of the peers that the end-to-end tests use, and those
# of the programs given, where they are missing.
set -eu

missing=
need() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || missing="$missing $2"; }
need dig bind9-dnsutils
need kdig knot-dnsutils
need named bind9
need unbound unbound
[ -x /usr/share/zookeeper/bin/zkServer.sh ] || missing="$missing zookeeper"
need java default-jre-headless
for program; do need "$program" "$program"; done
[ -n "$missing" ] || exit 0

echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
# No service starts: the tests start what they need.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
fi
apt-get update -q
# shellcheck disable=SC2086 # a list of packages
apt-get install -q -y --no-install-recommends $missing
