#!/bin/sh
# Builds the packages, images and archives of a version into a directory, with a bill of
# materials and checksums, all of them or none. From one commit it makes the same octets each time,
# with one version of Go and of Debian.
#
#	deploy/release.sh VERSION DIRECTORY
set -eu

version=${1#v}
target=$2
if ! printf '%s\n' "$version" | grep -Eqx '[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z]+(\.[0-9A-Za-z]+)*)?'; then
	echo "release: \"$1\" must be a semantic version, such as v1.2.3" >&2
	exit 2
fi

NFPM=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
CYCLONEDX=github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0

# The time in all that is made is that of the commit.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
# Whatever the person's are.
export GOFLAGS=-buildvcs=false GOAMD64=v1 GOARM64=v8.0 GOEXPERIMENT='' GOFIPS140=off GOWORK=off LC_ALL=C.UTF-8 TZ=UTC
umask 022
work=$(mktemp -d)
out=$work/out
mkdir "$out"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$target"
target=$(cd "$target" && pwd)

# What git has, and is to have: no file that it ignores.
export GIT_INDEX_FILE="$work/index"
git read-tree HEAD
git add -A
git archive --format=tar -o "$work/source.tar" "$(git write-tree)"
mkdir "$work/source"
tar -C "$work/source" -xf "$work/source.tar"
cd "$work/source"

# The tools, built so that what they tell of themselves is the same as well.
CGO_ENABLED=0 GOBIN=$work/tools go install -trimpath "$NFPM"
CGO_ENABLED=0 GOBIN=$work/tools go install -trimpath "$CYCLONEDX"

# programs builds the programs for an architecture: programs ARCH
programs() {
	CGO_ENABLED=0 GOOS=linux GOARCH=$1 make --no-print-directory build VERSION="v$version" \
		BIN="$work/$1" BUILDFLAGS=-trimpath STRIP='-s -w -buildid='
}

# materials lists the modules in coredns, among which are those of the other programs, and their
# licenses. It asks no proxy: that has the project's own module once it is released, and then the list
# would be another. So it warns that it has no license for that. Nor does it ask for checksums: the
# build has compared each module with go.sum, and of one that is not that in the program it takes no license.
materials() {
	GOPROXY=off GOSUMDB=off "$work/tools/cyclonedx-gomod" bin -json -licenses -std -noserial -notimestamp -version "v$version" \
		-output "$work/doc/calicomesos.cdx.json" "$work/amd64/coredns"
	cp "$work/doc/calicomesos.cdx.json" "$out/calicomesos_$version.cdx.json"
}

# packages makes the packages for an architecture: packages ARCH
packages() {
	for packager in deb rpm; do
		ARCH=$1 VERSION=$version BUILD=$work/$1 DOC=$work/doc \
			"$work/tools/nfpm" package --config deploy/nfpm.yaml --packager "$packager" --target "$out"
	done
}

# tarball makes the archive for an architecture: tarball ARCH
tarball() {
	name=calicomesos_${version}_linux_$1
	mkdir -p "$work/tar/$name/man"
	cp "$work/$1/coredns" "$work/$1/mesos-sim" "$work/$1/mesos-dns-corefile" LICENSE README.md CHANGELOG.md "$work/tar/$name"
	cp "$work"/doc/*.[17].gz "$work/tar/$name/man"
	cp -r docs deploy "$work/tar/$name"
	tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --mode=u=rwX,go=rX --owner=0 --group=0 --numeric-owner \
		-C "$work/tar" -cf "$work/$name.tar" "$name"
	gzip -9nc "$work/$name.tar" >"$out/$name.tar.gz"
	rm -r "$work/tar"
}

# image makes the image for an architecture, as an archive for `podman load` or `docker load`:
# image ARCH
image() {
	context=$work/image-$1
	mkdir -p "$context/state"
	install -m 0755 "$work/$1/coredns" "$context"
	install -m 0644 deploy/image/Corefile "$context"
	# Debian's, and none that this host trusts besides.
	cat /usr/share/ca-certificates/mozilla/*.crt >"$context/ca-certificates.crt"
	setcap cap_net_bind_service=+ep "$context/coredns"
	builder build --format oci --layers=false --isolation chroot --arch "$1" --timestamp "$SOURCE_DATE_EPOCH" --quiet \
		--label org.opencontainers.image.title=calicomesos \
		--label org.opencontainers.image.version="$version" \
		--label org.opencontainers.image.source=https://github.com/calicomesos/calicomesos \
		-f deploy/image/Dockerfile -t "calicomesos:$version" "$context"
	archive=$out/calicomesos_${version}_image_$1.tar
	builder push --quiet "calicomesos:$version" "docker-archive:$archive:calicomesos:$version"
}

# builder is buildah with nothing outside of $work.
builder() {
	buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"
}

mkdir -p "$work/doc"
deploy/doc.sh "$version" "$work/doc"
programs amd64
programs arm64
materials
for arch in amd64 arm64; do
	packages "$arch"
	tarball "$arch"
	image "$arch"
done
(cd "$out" && sha256sum -- * >SHA256SUMS)
cp "$out"/calicomesos* "$target"
cp "$out/SHA256SUMS" "$target" # last: with it they are whole
