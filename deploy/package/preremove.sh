#!/bin/sh
# Stops the service when the package goes. An upgrade leaves it running: the new version restarts
# it. Debian calls this with "remove", RPM with the number of versions that remain.
set -e

case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
[ -d /run/systemd/system ] || exit 0

if command -v deb-systemd-invoke >/dev/null; then
	deb-systemd-invoke stop calicomesos.service || true # it may be gone
else
	systemctl --no-reload disable --now calicomesos.service || true
fi
