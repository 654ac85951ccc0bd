#!/bin/sh
# Runs in a Debian that was just booted, without a network, beside systemd-resolved: installs the
# package in /packages/1, uses it, upgrades it to the one in /packages/2, and removes it. What it prints
# of each step is a line: "ok" or "failed", what was looked at, and how it was.
set -u

export DEBIAN_FRONTEND=noninteractive

# check tells whether a command succeeds: check WHAT COMMAND...
check() {
	what=$1
	shift
	if said=$("$@" 2>&1); then
		echo "ok $what"
	else
		echo "failed $what: $(printf '%s' "$said" | tail -n 20 | tr '\n' '|')"
		exit 1
	fi
}

# same tells whether a command prints what is expected: same WHAT EXPECTED COMMAND...
same() {
	what=$1
	expected=$2
	shift 2
	said=$("$@" 2>&1)
	if [ "$said" = "$expected" ]; then
		echo "ok $what"
	else
		echo "failed $what: got $(printf '%s' "$said" | tail -n 20 | tr '\n' '|'), not $expected"
		exit 1
	fi
}

# eventually waits for what same looks at.
eventually() {
	expected=$2
	for _ in $(seq 300); do
		[ "$(shift 2; "$@" 2>&1)" = "$expected" ] && break
		sleep 0.1
	done
	same "$@"
}

# Most questions are asked of the packaged server.
addresses() { dig @127.0.0.1 +short +time=1 +tries=1 "$1" | sort | tr "\n" " "; }
rcode() { dig @127.0.0.1 +time=1 +tries=1 "$1" | sed -n 's/.*status: \([A-Z]*\).*/\1/p'; }
ttl() { dig @127.0.0.1 +noall +answer +time=1 +tries=1 "$1" | awk 'NR == 1 { print $2 }'; }
pid() { systemctl show -p MainPID --value calicomesos; }
install() { apt-get -q -y install "/packages/$1/"*.deb; }
logged() { journalctl -u calicomesos -o cat | grep "Restart failed" | grep -cF "$1"; }
version_is() { bash -c 'exec 3<>/dev/tcp/127.0.0.1/8123 && printf "GET /v1/version HTTP/1.0\r\n\r\n" >&3 && grep -F "$0" <&3' "$1"; }
absent() { [ ! -e "$1" ]; }

# unanswered asks until it is told to end, and tells how often there was no answer.
unanswered() {
	asked=0
	none=0
	trap '[ $((none * 3)) -lt "$asked" ] && told=ok || told=failed; echo "$told was asked $asked times meanwhile, and did not answer $none times"; exit' TERM
	while :; do
		asked=$((asked + 1))
		dig @127.0.0.1 +short +time=1 +tries=1 nginx.marathon.mesos | grep -q '^192' || none=$((none + 1))
		sleep 0.01
	done
}

# As little as a person does: install, say where the master is, ask.
nginx="192.168.50.65 192.168.50.66 192.168.84.192 "

same "resolved is there" active systemctl is-active systemd-resolved
check "installs" install 1
same "is started" active systemctl is-active calicomesos
same "is started at boot" enabled systemctl is-enabled calicomesos
eventually "names are doubtful without a master" SERVFAIL rcode nginx.marathon.mesos
same "others are not its" SERVFAIL rcode example.org
check "says its version" sh -c 'coredns-calicomesos -version | grep -F calicomesos-v0.0.1'
check "resolved is not disturbed" dig @127.0.0.53 +time=1 +tries=1 localhost
check "starts a master" systemd-run --quiet --unit=mesos-sim mesos-sim -listen 127.0.0.1:5050
eventually "answers" "$nginx" addresses nginx.marathon.mesos
same "answers in the scheme of DC/OS" "$nginx" addresses nginx.marathon.containerip.dcos.thisdcos.directory
check "has an API" version_is 0.0.1

# The service is what its unit says.
same "has a user of its own" calicomesos stat -c %U "/proc/$(pid)"
same "can bind low ports and nothing else" 0000000000000400 sed -n 's/^CapEff:\t//p' "/proc/$(pid)/status"
same "has a state directory" "750 calicomesos" stat -c '%a %U' /var/lib/calicomesos
eventually "writes a snapshot" "600 calicomesos" stat -c '%a %U' /var/lib/calicomesos/mesos.snapshot
printf 'principal secret' >/etc/calicomesos/mesos.credentials
printf 'zk://127.0.0.1:2181/mesos' >/etc/calicomesos/mesos.credentials.zk
systemd-tmpfiles --create calicomesos.conf
for file in mesos.credentials mesos.credentials.zk; do
	same "keeps $file to itself" "640 root calicomesos" stat -c '%a %U %G' "/etc/calicomesos/$file"
done
same "has a unit without faults" "" systemd-analyze verify --man=no calicomesos.service
check "can do little harm" systemd-analyze security --threshold=16 calicomesos
check "can do little harm by its unit alone" systemd-analyze security --offline=true --threshold=16 /usr/lib/systemd/system/calicomesos.service

# Settings.
first=$(pid)
sed -i 's/^        startup_timeout 1s/&\n        ttl 7/' /etc/calicomesos/Corefile
check "reloads" systemctl reload calicomesos
eventually "has what was reloaded" 7 ttl nginx.marathon.mesos
sed -i 's/^        ttl 7/        ttl never/' /etc/calicomesos/Corefile
check "is told to reload an error" systemctl reload calicomesos
eventually "says what is wrong" 1 logged 'invalid TTL "never"'
same "serves on" 7 ttl nginx.marathon.mesos
sed -i 's/^        ttl never/        ttl 7/' /etc/calicomesos/Corefile
same "is the same process" "$first" pid

# An upgrade and a crash while the master is away.
check "ends the master" systemctl stop mesos-sim
unanswered 2>&1 &
asker=$!
check "upgrades" install 2
kill "$asker" && wait "$asker"
check "is another version" sh -c 'coredns-calicomesos -version | grep -F calicomesos-v0.0.2'
check "runs another version" version_is 0.0.2
same "answers from the snapshot" "$nginx" addresses nginx.marathon.mesos
same "keeps settings" 7 ttl nginx.marathon.mesos
kill -9 "$(pid)"
eventually "comes back after a crash" "$nginx" addresses nginx.marathon.mesos
check "is masked by its administrator" systemctl mask --quiet calicomesos
check "upgrades what is masked" apt-get -q -y --reinstall install /packages/2/*.deb
check "is unmasked again" systemctl unmask --quiet calicomesos
check "is disabled by its administrator" systemctl disable --quiet calicomesos
check "upgrades again" apt-get -q -y --allow-downgrades install /packages/1/*.deb
same "stays disabled" disabled systemctl is-enabled calicomesos
check "is enabled again" systemctl enable --quiet calicomesos

# Gone.
check "is removed" apt-get -q -y remove calicomesos
check "leaves no program" absent /usr/bin/coredns-calicomesos
check "leaves no mask" absent /etc/systemd/system/calicomesos.service
same "leaves no process" "" pgrep -f coredns-calicomesos
check "leaves settings" grep -q "ttl 7" /etc/calicomesos/Corefile
check "leaves its state" test -s /var/lib/calicomesos/mesos.snapshot
check "installs once more" install 2
eventually "answers as before" "$nginx" addresses nginx.marathon.mesos
check "is purged" apt-get -q -y purge calicomesos
check "has no settings" absent /etc/calicomesos
check "has no state" absent /var/lib/calicomesos
check "has no unit" sh -c '! systemctl cat calicomesos'
same "nothing failed" "" systemctl list-units --failed --plain --no-legend
echo "end"
