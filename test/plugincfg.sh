#!/bin/sh
# Builds upstream CoreDNS with calicomesos by one line in plugin.cfg, and looks
# whether the binary knows it.
set -eu

here=$(pwd)
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

go mod download github.com/coredns/coredns
cp -r "$(go list -m -f '{{.Dir}}' github.com/coredns/coredns)/." "$work"
chmod -R u+w "$work"
cd "$work"
sed -i 's|^hosts:hosts$|calicomesos:github.com/calicomesos/calicomesos\nhosts:hosts|' plugin.cfg
go mod edit -require=github.com/calicomesos/calicomesos@v0.0.0 -replace="github.com/calicomesos/calicomesos=$here"
go generate coredns.go
go mod tidy
go build -o coredns .
./coredns -plugins | grep -x calicomesos
printf '.:0 {\n bind 127.0.0.1\n calicomesos {\n  nonsense\n }\n}\n' >Corefile
./coredns -conf Corefile 2>&1 | grep 'unknown property "nonsense"'
