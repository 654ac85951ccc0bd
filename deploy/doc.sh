#!/bin/sh
# Makes the manual pages, of README.md and of what the programs say of themselves, and what Debian
# wants in /usr/share/doc.
#
#	deploy/doc.sh VERSION DIRECTORY
set -eu

version=$1
out=$2
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
date=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)

# page makes a page of Markdown on standard input: page NAME SECTION
page() {
	{
		printf '%%%%%%\ntitle = "%s %s"\narea = "calicomesos %s"\nworkgroup = "CoreDNS"\ndate = %s\n%%%%%%\n\n' "$1" "$2" "$version" "$date"
		cat
	} | mmark -man >"$out/$1.$2"
	gzip -9nf "$out/$1.$2"
}

# options makes Markdown of the flags in the help of a program, in the form of Go's package flag:
# options HELP
options() {
	printf '## Options\n'
	printf '%s\n' "$1" | awk '
		/^  -/ { flag = $1; $1 = ""; sub(/^ +/, ""); print "\n**" flag "** " ($0 == "" ? "" : "*" $0 "*"); found = 1; next }
		!found { next }
		{ sub(/^[ \t]+/, ""); print ":   " $0 }
	'
}

# What the programs print, and not what go prints, such as which modules it downloads.
programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT
trap 'exit 1' HUP INT TERM
go build -o "$programs" ./cmd/mesos-sim ./cmd/mesos-dns-corefile
sim=$("$programs/mesos-sim" -h 2>&1)
corefile=$("$programs/mesos-dns-corefile" -h 2>&1)

# The README without what a reader of the page has done already. Tables are lists, since a terminal is
# narrow, and links are to where the packages have the documents.
{
	awk '
		/^## / { skip = ($2 == "Installation" || $2 == "See") }
		skip || /^!\[/ || NR == 1 { next }
		/^\|-/ { next }
		/^\|/ {
			if (!table++) next
			split($0, cell, " \\| ")
			sub(/^\| /, "", cell[1]); sub(/ \|$/, "", cell[2])
			print "\n" cell[1] "\n:   " cell[2]
			next
		}
		{ table = 0; print }
	' README.md | sed -E 's|\[[^]]*\]\((docs/[^)]*)\)|`/usr/share/doc/calicomesos/\1`|g; s|^deploy/ has|`/usr/share/doc/calicomesos/deploy` has|'
	cat <<END
## Files

\`/etc/calicomesos/Corefile\`, \`/var/lib/calicomesos\`
:   What the service \`calicomesos\` of the packages serves, and where it keeps its snapshot.

\`/usr/share/doc/calicomesos\`
:   The documents, alerts and a dashboard for Prometheus and Grafana.

## See Also

mesos-sim(1), mesos-dns-corefile(1); https://coredns.io for CoreDNS's own plugins and options.
END
} | page coredns-calicomesos 7

{
	cat <<END
## Name

*mesos-sim* - simulates a Mesos master

## Synopsis

**mesos-sim** [*OPTIONS*]

## Description

It serves the Operator API v1 of a master that leads a small cluster, a cluster from a file, a generated one, or a
recorded stream, until it is interrupted. The small cluster has nginx, three instances that stay, wanderer, which moves every
five seconds, and others.

## Examples

\`mesos-sim\` in one terminal, and in another

~~~ sh
dig @127.0.0.1 +short nginx.marathon.mesos
dig @127.0.0.1 +short wanderer.marathon.mesos
~~~

END
	options "$sim"
	printf '\n## See Also\n\ncoredns-calicomesos(7)\n'
} | page mesos-sim 1

{
	cat <<END
## Name

*mesos-dns-corefile* - translates the configuration of Mesos-DNS into a Corefile, or compares both

## Synopsis

**mesos-dns-corefile** [**-credentials** *FILE*] *CONFIG.JSON* >*Corefile*

**mesos-dns-corefile** **-compare** [**-settle** *DURATION*] *OLD-SERVER* *NEW-SERVER*

## Description

END
	# What its help says between the usage and the flags.
	printf '%s\n' "$corefile" | awk '/^  -/ { exit } /^Usage/ || /^  / { next } { print }'
	options "$corefile"
	printf '\n## See Also\n\ncoredns-calicomesos(7), and \`/usr/share/doc/calicomesos/docs/migrating.md\`\n'
} | page mesos-dns-corefile 1

gzip -9nc CHANGELOG.md >"$out/changelog.gz"
printf 'calicomesos (%s) stable; urgency=medium\n\n  * /usr/share/doc/calicomesos/changelog.gz has what changed.\n\n -- The calicomesos authors <calicomesos@users.noreply.github.com>  %s\n' \
	"$(echo "$version" | tr - "~")" "$(date -u -d "@$SOURCE_DATE_EPOCH" '+%a, %d %b %Y %H:%M:%S +0000')" | gzip -9nc >"$out/changelog.Debian.gz"
cat >"$out/copyright" <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: calicomesos
Source: https://github.com/calicomesos/calicomesos
Comment: calicomesos.cdx.json beside this file lists the modules that are linked in, with their licenses.

Files: *
Copyright: 2026 The calicomesos authors
License: Apache-2.0
 On Debian, /usr/share/common-licenses/Apache-2.0 has the text.
END
