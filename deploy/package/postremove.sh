#!/bin/sh
# Forgets the service, and on Debian's "purge" its state and settings. The user stays: its number
# must not become another's.
set -e

if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true # it may be gone as well
fi
case "$1" in
remove)
	if command -v deb-systemd-helper >/dev/null; then
		deb-systemd-helper mask calicomesos.service >/dev/null
	fi
	;;
purge)
	if command -v deb-systemd-helper >/dev/null; then
		deb-systemd-helper purge calicomesos.service >/dev/null
		deb-systemd-helper unmask calicomesos.service >/dev/null
	fi
	rm -rf /var/lib/calicomesos
	rm -f /etc/calicomesos/*.credentials* # no secret stays
	rmdir --ignore-fail-on-non-empty /etc/calicomesos 2>/dev/null || true # it may be gone
	;;
esac
