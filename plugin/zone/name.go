package zone

import (
	"hash/maphash"
	"strings"
)

// Name is a name relative to a zone's origin, split in two: Sub is the last label
// where that is one of Config.Subs, Rel is the rest. Names that differ only in Sub
// share a node. The apex is the zero Name.
type Name struct {
	Rel string
	Sub Sub
}

// Sub numbers the labels of Config.Subs from 1. It is 0 in a name that ends in another
// label.
type Sub uint8

// subs is the number of values that a Sub can have.
const subs = 4

// Rel returns the Name of rel, which may end in any label.
func Rel(rel string) Name { return Name{Rel: rel} }

// split returns n in the form in which the zone keeps it: Sub is set wherever it can be,
// but for the subdomain's own name.
func (z *Zone) split(n Name) Name {
	dot := strings.LastIndexByte(n.Rel, '.')
	switch {
	case n.Sub != 0 && n.Rel == "":
		return Name{Rel: z.Subs[n.Sub-1]}
	case n.Sub != 0 || dot < 0:
		return n
	}
	for i, label := range z.Subs {
		if n.Rel[dot+1:] == label {
			return Name{n.Rel[:dot], Sub(i + 1)}
		}
	}
	return n
}

// parent returns the name one label above n, which must not be the apex.
func (z *Zone) parent(n Name) Name {
	_, rest, _ := strings.Cut(n.Rel, ".")
	return z.split(Name{rest, n.Sub})
}

// absolute returns n as a fully qualified name.
func (z *Zone) absolute(n Name) string {
	var b strings.Builder
	b.Grow(z.length(n))
	z.write(&b, n.Sub, n.Rel)
	return b.String()
}

// length returns the number of characters in the fully qualified name of n.
func (z *Zone) length(n Name) int {
	size := len(n.Rel) + 1
	if n.Sub != 0 {
		size += len(z.Subs[n.Sub-1]) + 1
	}
	if z.Origin != "." {
		size += len(z.Origin)
	}
	return size
}

// write appends the fully qualified name of a Rel, which is given in parts, and a Sub.
func (z *Zone) write(to *strings.Builder, s Sub, rel ...string) {
	start := to.Len()
	for _, part := range rel {
		to.WriteString(part)
	}
	if to.Len() > start {
		to.WriteByte('.')
	}
	if s != 0 {
		to.WriteString(z.Subs[s-1])
		to.WriteByte('.')
	}
	if z.Origin != "." || to.Len() == start {
		to.WriteString(z.Origin)
	}
}

// writeTarget appends the target of an SRV record, of a node with the Rel owner, and returns it.
func (z *Zone) writeTarget(to *strings.Builder, owner string, r rr) string {
	start := to.Len()
	prefix, text, suffix := r.target(owner)
	z.write(to, r.class.targetSub(), prefix, text, suffix)
	return to.String()[start:]
}

// fits reports whether n has at most 255 octets in this zone.
func (z *Zone) fits(n Name) bool { return FitsName(z.length(n)) }

// find returns the node of rel. It has no sets if there is none.
func (g *Generation) find(rel string) node { return g.table.find(g.zone.tag(rel), rel) }

// tag returns the hash of rel, which begins with that of its kin.
func (z *Zone) tag(rel string) uint32 {
	tag := uint32(maphash.String(z.seed, rel))
	if z.Kin != nil {
		tag = tag>>kinBits | uint32(maphash.String(z.seed, z.Kin(rel)))<<(bits-kinBits)
	}
	return tag
}

// kinBits is the number of bits of a tag that are of the kin: they tell a million apps apart, and the
// rest 4096 names of an app. More of them share tags.
const kinBits = 20
