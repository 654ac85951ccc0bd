#!/bin/sh
# Runs the image in a network namespace of its own, as docs/installing.md does:
#
#	image.sh ARCHIVE VERSION DIRECTORY
#
# DIRECTORY is for what podman keeps, PATH has mesos-sim.
set -eu

archive=$1
version=$2
work=$3

ip link set lo up
# Where a container can't have limits of its own, its cgroup is not made.
umount /sys/fs/cgroup/unified 2>/dev/null || true

# pod is podman without what a service manager or a registry would give it.
pod() {
	podman --root "$work/storage" --runroot "$work/run" --storage-driver vfs --cgroup-manager cgroupfs --events-backend none "$@"
}

# run runs the image, with what follows as podman's options.
run() {
	# Limits that a container here may have.
	pod run --rm --name calicomesos --network host --cgroups=disabled --ulimit nofile=10000:10000 --ulimit nproc=5000:5000 \
		-e MASTER=127.0.0.1:5050 -v calicomesos:/var/lib/calicomesos "localhost/calicomesos:$version" "$@"
}

# eventually waits until a command succeeds.
eventually() {
	for _ in $(seq 300); do
		"$@" >/dev/null 2>&1 && return
		sleep 0.1
	done
	echo "failed: $*" >&2
	cat "$work"/log* >&2
	exit 1
}
answers() { [ "$(dig @127.0.0.1 +short +time=1 +tries=1 nginx.marathon.mesos | wc -l)" = 3 ]; }
ready() { curl -fsS http://127.0.0.1:8181/ready; }
ends() { ! kill -0 "$1"; }

pod load -q -i "$archive"
[ "$(pod image inspect --format '{{.Config.User}}' "localhost/calicomesos:$version")" = 65532:65532 ]
run -version | grep -F "calicomesos-v$version"

mesos-sim -listen 127.0.0.1:5050 >"$work/log-sim" 2>&1 &
master=$!
run >"$work/log-1" 2>&1 &
eventually ready
eventually answers
pid=$(pod inspect --format '{{.State.Pid}}' calicomesos)
[ "$(stat -c %u "/proc/$pid")" = 65532 ]
curl -fsS http://127.0.0.1:9153/metrics | grep -F "coredns_calicomesos_build_info{coredns=\"1.15.0\",version=\"v$version\"} 1"
kill "$master"
pod stop calicomesos
eventually ends "$pid"

# The master is away: the volume has the snapshot.
run >"$work/log-2" 2>&1 &
eventually answers
ready
pod stop calicomesos
wait
