#!/bin/sh
# Makes the user, enables the service and starts it. Debian calls it with "configure", RPM with the number of
# versions that are installed.
set -e

case "$1" in
configure | 1 | 2) ;;
*) exit 0 ;; # a failed removal or upgrade of Debian's
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
		deb-systemd-helper enable calicomesos.service >/dev/null
	else
		deb-systemd-helper update-state calicomesos.service >/dev/null
	fi
elif [ "$1" = 1 ] && command -v systemctl >/dev/null; then
	systemctl --no-reload preset calicomesos.service
fi

[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
if command -v deb-systemd-invoke >/dev/null; then
	deb-systemd-invoke restart calicomesos.service
else
	systemctl try-restart calicomesos.service
fi
