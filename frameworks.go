package calicomesos

import (
	"slices"
	"strings"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesos"
)

// tenant is a framework that "frameworks" names.
type tenant struct {
	name      string // of the FrameworkInfo, as it is
	principal string // "": anybody's
}

// String returns NAME[:PRINCIPAL].
func (t tenant) String() string {
	if t.principal == "" {
		return t.name
	}
	return t.name + ":" + t.principal
}

// names reports whether t names a framework.
func (t tenant) names(f *mesos.Framework) bool {
	return t.name == f.Name && (t.principal == "" || t.principal == f.Principal)
}

// excludes reports whether nothing of a framework is published.
func (r *rules) excludes(f *mesos.Framework) bool {
	return len(r.frameworks) > 0 && !slices.ContainsFunc(r.frameworks, func(t tenant) bool { return t.names(f) })
}

// frameworkNames knows which frameworks have a name below another's: the records of a
// framework `nginx.marathon` would join those of the task nginx of marathon.
type frameworkNames struct {
	owners map[string]int                         // frameworks by their whole names
	below  map[string]map[*cluster.Framework]bool // those with names that end in a dot and the key
	hidden map[*cluster.Framework]bool            // those published without records, for that
}

func newFrameworkNames() frameworkNames {
	return frameworkNames{owners: make(map[string]int), below: make(map[string]map[*cluster.Framework]bool), hidden: make(map[*cluster.Framework]bool)}
}

// add takes in a framework, and returns its name if no other has it.
func (n *frameworkNames) add(f *cluster.Framework) (first string) {
	name := labels(f.Name)
	n.owners[name]++
	for suffix := range suffixes(name) {
		if n.below[suffix] == nil {
			n.below[suffix] = make(map[*cluster.Framework]bool)
		}
		n.below[suffix][f] = true
	}
	if n.owners[name] == 1 {
		return name
	}
	return ""
}

// remove drops a framework, and returns its name if no other has it.
func (n *frameworkNames) remove(f *cluster.Framework) (last string) {
	delete(n.hidden, f)
	name := labels(f.Name)
	for suffix := range suffixes(name) {
		delete(n.below[suffix], f)
		if len(n.below[suffix]) == 0 {
			delete(n.below, suffix)
		}
	}
	if n.owners[name]--; n.owners[name] > 0 {
		return ""
	}
	delete(n.owners, name)
	return name
}

// joins reports whether a framework's name is below another's.
func (n *frameworkNames) joins(f *cluster.Framework) bool {
	for suffix := range suffixes(labels(f.Name)) {
		if n.owners[suffix] > 0 {
			return true
		}
	}
	return false
}

// suffixes yields what follows each dot of a name.
func suffixes(name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for {
			_, rest, found := strings.Cut(name, ".")
			if !found || !yield(rest) {
				return
			}
			name = rest
		}
	}
}

// replaceFramework replaces a framework's records, and those of frameworks below its name.
func (p *publisher) replaceFramework(c cluster.Change[*cluster.Framework]) {
	var flipped []string // names that no framework had, or has any more
	p.swap(func(out *recordSet) {
		if c.Old != nil {
			p.rules.framework(c.Old, p.names.hidden[c.Old], out)
			if !p.rules.excludes(c.Old.Framework) {
				flipped = append(flipped, p.names.remove(c.Old))
			}
		}
	}, func(out *recordSet) {
		switch {
		case c.New == nil:
		case p.rules.excludes(c.New.Framework): // its name is nobody's
			p.rules.framework(c.New, false, out)
		default:
			flipped = append(flipped, p.names.add(c.New))
			p.publishFramework(c.New, out)
		}
	})
	for _, name := range flipped {
		for f := range p.names.below[name] {
			p.swap(func(out *recordSet) { p.rules.framework(f, p.names.hidden[f], out) },
				func(out *recordSet) { p.publishFramework(f, out) })
		}
	}
}

// publishFramework appends the records that a framework has now.
func (p *publisher) publishFramework(f *cluster.Framework, out *recordSet) {
	hidden := p.names.joins(f)
	if hidden {
		p.names.hidden[f] = true
	} else {
		delete(p.names.hidden, f)
	}
	p.rules.framework(f, hidden, out)
}
