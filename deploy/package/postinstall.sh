#!/bin/sh
# Makes the user, enables the service and starts it. Debian calls it with "configure", RPM with the
# number of versions that are installed.
set -e

case "$1" in
configure | abort-* | [1-9]*) ;; # also after a removal or an upgrade that failed
*) exit 0 ;;
esac

if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers calicomesos.conf
	systemd-tmpfiles --create calicomesos.conf || true # what it finds there is the administrator's
fi
# Enabled as Debian's policy has it, unless the administrator has said otherwise; for RPM as the
# distribution's presets have it. This works without a running systemd too, as in an image.
if command -v deb-systemd-helper >/dev/null; then
	deb-systemd-helper unmask calicomesos.service >/dev/null || true
	if deb-systemd-helper --quiet was-enabled calicomesos.service; then
		deb-systemd-helper enable calicomesos.service >/dev/null || true
	else
		deb-systemd-helper update-state calicomesos.service >/dev/null || true
	fi
elif [ "$1" = 1 ] && command -v systemctl >/dev/null; then
	systemctl --no-reload preset calicomesos.service || true
fi

[ -d /run/systemd/system ] || exit 0
# A service that cannot be started, such as a masked one, does not make the package a broken one.
systemctl daemon-reload || true
if command -v deb-systemd-invoke >/dev/null; then
	deb-systemd-invoke restart calicomesos.service || true
else
	systemctl try-restart calicomesos.service || true
fi
