package zone

import (
	"encoding/binary"
	"iter"
)

// sets are the RRsets of the names that share a Rel, in one string. A set is its class, the numbers of
// its records and of their octets, and the records; a record is its data, and the number of times that
// it was added. Octets and times are uvarints (encoding/binary). Sets come in the order of their classes,
// records in that of their data. A large RRset is several sets, all but the last of maxSet records: a
// search decodes one, and a change those from its record on.
type sets string

const maxSet = 64

// class returns the class of the first set.
func (s sets) class() class { return class(s[0]) }

// cut returns the records of the first set and their number, and the sets after it.
func (s sets) cut() (records string, count int, rest sets) {
	size, n := uvarint(string(s[2:]))
	start := 2 + n
	return string(s[start : start+size]), int(s[1]), s[start+size:]
}

// uvarint returns the number that s begins with, and its octets.
func uvarint(s string) (v, size int) {
	for shift := 0; ; shift += 7 {
		b := s[size]
		size++
		v |= int(b&0x7f) << shift
		if b < 0x80 {
			return v, size
		}
	}
}

// between returns the sets whose classes are from one to another, inclusive.
func (s sets) between(from, to class) sets {
	for s != "" && s.class() < from {
		_, _, s = s.cut()
	}
	rest := s
	for rest != "" && rest.class() <= to {
		_, _, rest = rest.cut()
	}
	return s[:len(s)-len(rest)]
}

// of returns the sets of the name with the given Sub.
func (s sets) of(sub Sub) sets { return s.between(class(0).of(sub), anyClass.of(sub)) }

// served returns which sets of one name are answered: all of them are backups, or none is.
func (s sets) served() sets {
	if s == "" {
		return ""
	}
	first := s.class() &^ anyClass
	served := s.between(first, first+backup-1)
	if served == "" {
		served = s.between(first+backup, first+below-1)
	}
	if served != "" && served.class()&typeMask == typePTR && (served.count() > 1 || served.record().times > 1) {
		return ""
	}
	return served
}

// exists reports whether a name with these sets is in the zone, for its records or as an
// empty non-terminal (RFC 4592, section 2.2.2).
func (s sets) exists() bool {
	if s == "" {
		return false
	}
	last := s.class() | anyClass
	return s.between(last&^(below-1), last) != "" || s.served() != ""
}

// types returns the sets of the types from one to another, of a result of served.
func (s sets) types(from, to class) sets {
	if s == "" {
		return ""
	}
	c := s.class() &^ (typeMask | targetMask)
	return s.between(c|from, c|to|targetMask)
}

// count returns the number of records.
func (s sets) count() int {
	all := 0
	for s != "" {
		_, n, rest := s.cut()
		all += n
		s = rest
	}
	return all
}

// record returns the first record.
func (s sets) record() rr {
	c := s.from(0)
	r, _ := c.next()
	return r
}

// cursor reads records one after the other.
type cursor struct {
	class   class
	records string // the unread ones of a set
	rest    sets   // after that set
}

// from returns a cursor at the record with an index.
func (s sets) from(index int) cursor {
	for s != "" {
		records, n, rest := s.cut()
		if index < n {
			c := cursor{s.class(), records, rest}
			for range index {
				c.next()
			}
			return c
		}
		index -= n
		s = rest
	}
	return cursor{}
}

// next returns the next record, or false after the last.
func (c *cursor) next() (rr, bool) {
	if c.records == "" {
		if c.rest == "" {
			return rr{}, false
		}
		c.class = c.rest.class()
		c.records, _, c.rest = c.rest.cut()
	}
	size := c.class.size(c.records)
	times, n := uvarint(c.records[size:])
	r := rr{c.records[:size], int32(times), c.class}
	c.records = c.records[size+n:]
	return r, true
}

// around yields every record, from the one with the index first on.
func (s sets) around(first int) iter.Seq[rr] {
	return func(yield func(rr) bool) {
		c := s.from(first)
		for range s.count() {
			r, ok := c.next()
			if !ok {
				c = s.from(0)
				r, _ = c.next()
			}
			if !yield(r) {
				return
			}
		}
	}
}

// sameAs reports whether s and o, results of served, are answered alike.
func (s sets) sameAs(o sets) bool { return s.without(o) == "" && o.without(s) == "" }

// without returns the records of s that are not answered in o. Both are results of served.
func (s sets) without(o sets) sets {
	var w writer
	other := o.from(0)
	y, more := other.next()
	for x := range s.around(0) {
		for more && y.compareServed(x) < 0 {
			y, more = other.next()
		}
		if !more || y.compareServed(x) != 0 {
			w.add(x)
		}
	}
	w.end()
	return sets(w.done)
}

// writer makes sets of records that are added in order.
type writer struct {
	done    []byte // sets
	class   class
	count   int
	records []byte // of the set that is not done yet
}

func (w *writer) add(r rr) {
	if r.class != w.class {
		w.end()
	}
	w.class = r.class
	w.count++
	w.records = binary.AppendUvarint(append(w.records, r.data...), uint64(r.times))
	if w.count == maxSet {
		w.end()
	}
}

// end ends the set that is not done.
func (w *writer) end() {
	if w.count > 0 {
		w.done = binary.AppendUvarint(append(w.done, byte(w.class), byte(w.count)), uint64(len(w.records)))
		w.done = append(w.done, w.records...)
	}
	w.count, w.records = 0, w.records[:0]
}

// merge returns s with changes, which come in the order of records; it is valid until the next
// call. Nothing takes back what was not added.
func (w *writer) merge(s sets, changes []change) []byte {
	changed := s
	for changed != "" {
		_, _, rest := changed.cut()
		if rest == "" || changes[0].rr.compare(rest.record()) < 0 {
			break
		}
		changed = rest
	}
	w.done = append(w.done[:0], s[:len(s)-len(changed)]...)
	old := changed.from(0)
	for r, ok := old.next(); ok || len(changes) > 0; {
		var now rr
		if len(changes) == 0 || ok && r.compare(changes[0].rr) <= 0 {
			now = r
			r, ok = old.next()
		} else {
			now = changes[0].rr
			now.times = 0
		}
		for len(changes) > 0 && now.compare(changes[0].rr) == 0 {
			now.times += changes[0].times
			changes = changes[1:]
		}
		if now.times > 0 {
			w.add(now)
		}
	}
	w.end()
	return w.done
}
