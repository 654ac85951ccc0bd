package zone

import (
	"hash/maphash"
	"strings"
)

// Owner is a name relative to a zone's origin, in two parts: a head, and a label
// that many names of the zone end with. Names that differ in nothing else are kept
// together.
type Owner struct {
	Head string // "" is the apex, or the Tail's own name
	Tail Tail
}

// Tail is the last label of an Owner, by its number in Config.Tails, from 1 on;
// 0 for another one, which Head has.
type Tail uint8

// tails is how many different Tails owners have at the most, 0 included.
const tails = 4

// Name returns name as an Owner without a Tail.
func Name(name string) Owner { return Owner{Head: name} }

// cut returns o in the form in which it is kept: with a Tail where it can have
// one.
func (z *Zone) cut(o Owner) Owner {
	dot := strings.LastIndexByte(o.Head, '.')
	switch {
	case o.Tail != 0 && o.Head == "":
		return Owner{Head: z.Tails[o.Tail-1]}
	case o.Tail != 0 || dot < 0:
		return o
	}
	for i, label := range z.Tails {
		if o.Head[dot+1:] == label {
			return Owner{o.Head[:dot], Tail(i + 1)}
		}
	}
	return o
}

// above returns the name one label above o, which is not the apex.
func (z *Zone) above(o Owner) Owner {
	_, rest, _ := strings.Cut(o.Head, ".")
	return z.cut(Owner{rest, o.Tail})
}

// absolute returns the full name of o.
func (z *Zone) absolute(o Owner) string {
	var b strings.Builder
	b.Grow(z.length(o))
	z.write(&b, o)
	return b.String()
}

// length is how many characters the full name of o has.
func (z *Zone) length(o Owner) int {
	n := len(o.Head) + 1
	if o.Tail != 0 {
		n += len(z.Tails[o.Tail-1]) + 1
	}
	if z.Origin != "." {
		n += len(z.Origin)
	}
	return n
}

// write appends the full name of o.
func (z *Zone) write(to *strings.Builder, o Owner) {
	if o.Head != "" {
		to.WriteString(o.Head)
		to.WriteByte('.')
	}
	if o.Tail != 0 {
		to.WriteString(z.Tails[o.Tail-1])
		to.WriteByte('.')
	}
	if z.Origin != "." || o == (Owner{}) {
		to.WriteString(z.Origin)
	}
}

// fits reports whether the name of o in this zone has at most 255 octets.
func (z *Zone) fits(o Owner) bool { return FitsName(z.length(o)) }

// find returns the node of a head; or nil.
func (g *Generation) find(head string) *node {
	return g.table.find(g.zone.tag(head), head)
}

// tag is the hash of a head, never 0.
func (z *Zone) tag(head string) uint32 {
	return max(uint32(maphash.String(z.seed, head)), 1)
}
