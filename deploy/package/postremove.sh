#!/bin/sh
# Forgets the service, and on Debian's "purge" its state and settings. The user stays: its number
# must not become another's.
set -e

if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true # it may be gone as well
fi
case "$1" in
purge)
	if command -v deb-systemd-helper >/dev/null; then
		deb-systemd-helper purge calicomesos.service >/dev/null || true
	fi
	rm -rf /var/lib/calicomesos 2>/dev/null || true # the directory may be a mount
	rm -f /etc/calicomesos/*.credentials* # no secret stays
	rmdir --ignore-fail-on-non-empty /etc/calicomesos 2>/dev/null || true # it may be gone
	;;
esac
