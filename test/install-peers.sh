#!/bin/sh
# Installs the Debian packages of the programs given where they are missing; without
# any, of all peers of the end-to-end tests.
set -eu

[ $# -gt 0 ] || set -- dig kdig named unbound dnsmasq haproxy nginx prometheus zkServer.sh java
missing=
for program; do
	[ -x "/usr/sbin/$program" ] || [ -x "/usr/share/zookeeper/bin/$program" ] || [ "$program" = ca-certificates ] && [ -d /usr/share/ca-certificates/mozilla ] || command -v "$program" >/dev/null && continue
	case $program in
	dig) missing="$missing bind9-dnsutils" ;;
	kdig) missing="$missing knot-dnsutils" ;;
	named) missing="$missing bind9" ;;
	dnsmasq) missing="$missing dnsmasq-base" ;;
	nginx) missing="$missing nginx-light" ;;
	zkServer.sh) missing="$missing zookeeper" ;;
	setcap) missing="$missing libcap2-bin" ;;
	systemd-nspawn) missing="$missing systemd-container" ;;
	man) missing="$missing man-db" ;;
	script) missing="$missing bsdextrautils bsdutils" ;;
	java) missing="$missing default-jre-headless" ;;
	*) missing="$missing $program" ;;
	esac
done
[ -n "$missing" ] || exit 0

echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
# No service starts: the tests start what they need.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
	trap 'exit 1' HUP INT TERM
fi
apt-get update -q
# shellcheck disable=SC2086 # a list of packages
apt-get install -q -y --no-install-recommends $missing
