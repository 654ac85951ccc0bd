#!/bin/sh
# Runs CoreDNS as Corefile.example says, until Ctrl-C: for the master given, or
# for a simulated one.
set -eu

master=${1:-}
corefile=Corefile.example
scratch=
pids=

finish() {
	trap - EXIT INT TERM
	# shellcheck disable=SC2086 # a list of pids
	[ -z "$pids" ] || kill $pids 2>/dev/null || true
	wait
	[ -z "$scratch" ] || rm -f "$scratch"
}
trap finish EXIT
trap 'exit 0' INT TERM

if [ -n "$master" ]; then
	scratch=$(mktemp)
	sed "s|http://127.0.0.1:5050|$master|" Corefile.example >"$scratch"
	corefile=$scratch
else
	bin/mesos-sim -listen 127.0.0.1:5050 &
	pids=$!
	sleep 1
	kill -0 "$pids" 2>/dev/null || exit 1 # it has said why
fi
bin/coredns -conf "$corefile" &
pids="$pids $!"
last=$!

if [ -n "$master" ]; then
	cat <<-TEXT

	CoreDNS answers for the cluster of $master on 127.0.0.1:1053, and shows it on
	http://127.0.0.1:8123. Try, in another terminal:

	  dig @127.0.0.1 -p 1053 leader.mesos
	  dig @127.0.0.1 -p 1053 slave.mesos
	  dig @127.0.0.1 -p 1053 APP.FRAMEWORK.mesos

	TEXT
else
	cat <<-TEXT

	CoreDNS answers for a simulated cluster on 127.0.0.1:1053, and shows it on
	http://127.0.0.1:8123. Try, in another terminal:

	  dig @127.0.0.1 -p 1053 nginx.marathon.mesos
	  dig @127.0.0.1 -p 1053 _http._nginx._tcp.marathon.mesos SRV
	  dig @127.0.0.1 -p 1053 wanderer.marathon.mesos    # moves every five seconds
	  dig @127.0.0.1 -p 1053 mytask.acme.org            # an app claims it; leads to marathon-lb
	  curl http://127.0.0.1:8123/v1/services/_http._nginx._tcp.marathon.mesos

	TEXT
fi
wait "$last"
