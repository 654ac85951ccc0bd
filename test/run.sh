#!/bin/sh
# Runs CoreDNS as Corefile.example says, until Ctrl-C: for the master given, or
# for a simulated one.
set -eu

master=${1:-}
scratch=$(mktemp -d)
pids=

finish() {
	trap - EXIT INT TERM
	# shellcheck disable=SC2086 # a list of pids
	[ -z "$pids" ] || kill $pids 2>/dev/null || true
	wait
	rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 0' INT TERM

# fail says why it ends, after what the programs have said.
fail() {
	sleep 0.2 # their last lines are on the way
	echo "make run: $1" >&2
	exit 1
}

needs='It needs these ports of 127.0.0.1: 1053 (DNS), 8123 (the page), 8181 and 9153 (health and metrics)'
if [ -n "$master" ]; then
	# As text, whatever characters it has.
	awk -v line="        master $(printf '%s' "$master" | sed 's/\\/\\\\/g')" \
		'/^ *master http:/ { print line; next } { print }' Corefile.example >"$scratch/Corefile"
	cluster="the cluster of $master"
	names='	  dig @127.0.0.1 -p 1053 leader.mesos
	  dig @127.0.0.1 -p 1053 slave.mesos
	  dig @127.0.0.1 -p 1053 APP.FRAMEWORK.mesos'
else
	cp Corefile.example "$scratch/Corefile"
	cluster='a simulated cluster'
	names='	  dig @127.0.0.1 -p 1053 nginx.marathon.mesos
	  dig @127.0.0.1 -p 1053 _http._nginx._tcp.marathon.mesos SRV
	  dig @127.0.0.1 -p 1053 wanderer.marathon.mesos    # moves every five seconds
	  dig @127.0.0.1 -p 1053 mytask.acme.org            # an app claims it; leads to marathon-lb
	  curl http://127.0.0.1:8123/v1/services/_http._nginx._tcp.marathon.mesos'
	needs="$needs, 5050 (the simulated master)"
	bin/mesos-sim -listen 127.0.0.1:5050 >"$scratch/sim" 2>&1 &
	pids=$!
	until grep -q Simulating "$scratch/sim"; do
		kill -0 "$pids" 2>/dev/null || { cat "$scratch/sim" >&2; fail "the simulated master has ended, for what it says above. $needs."; }
		sleep 0.1
	done
	cat "$scratch/sim"
fi

# What CoreDNS says goes through, and tells when it answers.
mkfifo "$scratch/log"
bin/coredns -conf "$scratch/Corefile" >"$scratch/log" 2>&1 &
coredns=$!
pids="$pids $coredns"
answers=
while IFS= read -r line; do
	printf '%s\n' "$line"
	case $line in
	linux/*)
		answers=yes
		printf '\nCoreDNS answers for %s on 127.0.0.1:1053, and shows it on\nhttp://127.0.0.1:8123. Try, in another terminal:\n\n%s\n\nCtrl-C ends it. %s.\n\n' \
			"$cluster" "$(printf '%s\n' "$names" | sed 's/^\t//')" "$needs"
		;;
	esac
done <"$scratch/log"
[ -n "$answers" ] || fail "CoreDNS has ended, for what it says above. $needs."
