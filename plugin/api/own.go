package api

import (
	"embed"
	"net/http"
	"strconv"
	"unicode/utf8"
)

// The API of our own, and the page.

// Bounds of a query.
const (
	defaultLimit = 100
	maxLimit     = 1000 // rows of an answer
	maxText      = 256  // octets
)

func status(st Stanza, _ *http.Request) (reply, error) { return reply{value: st.Status()}, nil }

func explain(st Stanza, r *http.Request) (reply, error) {
	name := r.PathValue("name")
	if len(name) > maxText || !utf8.ValidString(name) {
		return reply{}, &requestError{http.StatusBadRequest, "400: the name is too long, or not in UTF-8"}
	}
	e, err := st.Explain(r.Context(), name)
	return reply{value: e}, err
}

func tasks(st Stanza, r *http.Request) (reply, error) {
	form := r.URL.Query()
	q := Query{Text: form.Get("q"), Limit: defaultLimit}
	var err error
	switch {
	case len(q.Text) > maxText:
		return reply{}, badParameter("q")
	case form.Has("skipped"):
		if q.Skipped, err = strconv.ParseBool(form.Get("skipped")); err != nil {
			return reply{}, badParameter("skipped")
		}
	}
	for name, value := range map[string]*int{"limit": &q.Limit, "offset": &q.Offset} {
		if !form.Has(name) {
			continue
		}
		if *value, err = strconv.Atoi(form.Get(name)); err != nil || *value < 0 {
			return reply{}, badParameter(name)
		}
	}
	q.Limit = min(q.Limit, maxLimit)
	found, err := st.Tasks(r.Context(), q)
	return reply{value: found}, err
}

func badParameter(name string) error {
	return &requestError{http.StatusBadRequest, "400: invalid parameter " + name}
}

//go:embed page
var page embed.FS

// pageFile returns a handler for a file of the page.
func pageFile(name, contentType string) http.HandlerFunc {
	b, err := page.ReadFile("page/" + name)
	if err != nil {
		panic(err) // it is embedded
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		_, _ = w.Write(b) // the client may have gone
	}
}
