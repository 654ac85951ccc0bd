#!/bin/bash
# Builds upstream CoreDNS with the plugin as docs/installing.md says, by its own lines, and looks
# whether the binary knows it. Where those lines clone CoreDNS, it is copied from Go's module proxy, which
# has no git repository; this checkout stands for a release of the plugin.
set -euo pipefail

module=github.com/calicomesos/calicomesos
upstream=github.com/coredns/coredns
version=v0.1.$(date +%s) # which Go's cache of modules has not seen
work=$(mktemp -d)
trap end EXIT

# end removes what was made, here and in Go's cache of modules.
end() {
	local cache
	cache=$(go env GOMODCACHE)
	chmod -R u+w "$work" "$cache/$module@$version" 2>/dev/null || true # it may not be there yet
	rm -rf "$work" "$cache/$module@$version" "$cache/cache/download/$module/@v/$version".*
}

# block prints the shell block of docs/installing.md that has some words in it: block WORDS
block() {
	awk -v words="$1" '/^~~~ sh$/ { text = ""; within = 1; next }
		/^~~~$/ { if (within && index(text, words)) printf "%s", text; within = 0 }
		within { text = text $0 "\n" }' docs/installing.md
}
build=$(block "git clone --depth 1")
without_hosts=$(block "0,/^")
[ -n "$build" ] && [ -n "$without_hosts" ]

# proxy makes a module proxy, in files, that has this checkout as a version.
proxy() {
	local versions=$work/proxy/$module/@v tree
	mkdir -p "$versions"
	echo "$version" >"$versions/list"
	echo "{\"Version\": \"$version\"}" >"$versions/$version.info"
	cp go.mod "$versions/$version.mod"
	export GIT_INDEX_FILE=$work/index
	git read-tree HEAD
	git add -A
	tree=$(git write-tree)
	unset GIT_INDEX_FILE
	# A module has no other module in it.
	git archive --format=zip --prefix="$module@$version/" -o "$versions/$version.zip" "$tree" -- . ':!test/acceptance'
}

# git_clone is what the lines clone with: git_clone clone --depth 1 --branch VERSION URL
git_clone() {
	local dir
	dir=$(cd "$work" && go mod download -json "$upstream@$5" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
	cp -r "$dir" coredns
	chmod -R u+w coredns
}

# inOrder looks whether those that pass questions on are asked before the plugin, and those that answer
# after it: inOrder PLUGIN.CFG
inOrder() {
	local before after
	before=$(sed '/^calicomesos:/,$d' "$1" | grep -cE '^(cache|rewrite|metadata|transfer):')
	after=$(sed '1,/^calicomesos:/d' "$1" | grep -cE '^(file|secondary|loop|forward):')
	[ "$before $after" = "4 4" ] || { echo "plugin.cfg has it at the wrong place" >&2; return 1; }
}

# check runs the lines for a release of CoreDNS: check VERSION NAME
check() {
	echo "CoreDNS $1, $2"
	mkdir "$work/$1-$2"
	(
		cd "$work/$1-$2"
		git() { git_clone "$@"; }
		if [ "$2" = without-hosts ]; then
			# As if its plugin.cfg had none, and as the text says then.
			with_hosts=$(grep -F hosts:hosts <<<"$build")
			build=${build/"$with_hosts"/"sed -i /^hosts:/d plugin.cfg"$'\n'"$without_hosts"}
		fi
		eval "${build//v1.15.0/$1}"
		inOrder plugin.cfg
		printf '.:0 {\n bind 127.0.0.1\n calicomesos {\n  nonsense\n }\n}\n' >Corefile
		{ ./coredns -conf Corefile 2>&1 || true; } | grep 'unknown property "nonsense"'
	)
}

proxy
GOPROXY=file://$work/proxy,$(go env GOPROXY)
GONOSUMDB=$module
export GOPROXY GONOSUMDB
releases=$(cd "$work" && go list -m -versions "$upstream" | tr ' ' '\n' | sed -n '/^v1\.15\.0$/,$p' | grep -v -- -)
for release in $releases; do
	check "$release" with-hosts
	check "$release" without-hosts
done
