package handlers

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"lockstep/ledger"
)

// Limits on what comes from outside.
const (
	maxBody    = 1 << 20
	maxWebhook = 512 << 10
	maxKey     = 255 // Stripe's for its own keys
	maxText    = 500
)

// call is one request on its way through a handler.
type call struct {
	w    http.ResponseWriter
	r    *http.Request
	id   string // of the request
	done bool   // an answer was begun

	query url.Values // only what the route takes

	bounded context.Context // the request's with the end of its time; nil: the request's own

	finish func(answer []byte) []byte // puts into an answer what is not kept with it under its key; nil: nothing
}

// finished is an answer as it is sent.
func (c *call) finished(answer []byte) []byte {
	if c.finish == nil {
		return answer
	}
	return c.finish(answer)
}

func (c *call) ctx() context.Context {
	if c.bounded != nil {
		return c.bounded
	}
	return c.r.Context()
}

// processTag makes request ids of different processes differ.
var processTag = func() string { return rand.Text()[:10] }()

var requestCount atomic.Uint64

func newRequestID() string {
	return "req_" + processTag + strconv.FormatUint(requestCount.Add(1), 36)
}

// api is a route under /v1: it needs a key with the scope, and a place in its room.
func (s *Server) api(scope string, room *room, handle func(*call) error) http.Handler {
	return s.open(func(c *call) error {
		if err := s.authorize(c, scope); err != nil {
			return err
		}
		if err := c.readQuery(queries[c.r.Pattern]); err != nil {
			return err
		}
		return c.within(room, handle)
	})
}

// within works in a room.
func (c *call) within(room *room, work func(*call) error) error {
	if err := room.enter(c.ctx()); err != nil {
		return err
	}
	defer room.leave()
	if room.limit > 0 {
		bounded, cancel := context.WithTimeout(c.ctx(), room.limit)
		defer func() { c.bounded = nil; cancel() }()
		c.bounded = bounded
	}
	return work(c)
}

// open is a route for everybody.
func (s *Server) open(handle func(*call) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{w: w, r: r, id: newRequestID()}
		w.Header()["Request-Id"] = []string{c.id}
		if s.stopping.Load() {
			s.called.Store(time.Now().UnixNano())
			w.Header().Set("Connection", "close")
		}
		if err := handle(c); err != nil {
			s.respondError(c, err)
		}
	})
}

// readQuery reads the query; a name that the route does not take, and what is no query, is refused.
func (c *call) readQuery(takes []string) error {
	if c.r.URL.RawQuery == "" {
		return nil
	}
	q, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return invalid("", "the query can't be read: "+brief(err.Error()))
	}
	for name := range q {
		if !slices.Contains(takes, name) {
			return unknown(name)
		}
	}
	c.query = q
	return nil
}

// send writes an answer that is already JSON.
func (c *call) send(status int, body []byte) error {
	c.done = true
	h := c.w.Header()
	h["Content-Type"] = jsonType
	c.w.WriteHeader(status)
	_, _ = c.w.Write(body) // a caller who has gone needs no answer
	return nil
}

var jsonType = []string{"application/json"}

// reply writes v as JSON.
func (c *call) reply(status int, v any) error {
	body, err := encode(v)
	if err != nil {
		return err
	}
	return c.send(status, body)
}

// encode is json.Marshal without the escapes for HTML, which nothing here is.
func encode(v any) ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return []byte(b.String()), nil
}

// read takes the body, at most limit bytes of it.
func (c *call) read(limit int64) ([]byte, error) {
	in := http.MaxBytesReader(c.w, c.r.Body, limit)
	var body []byte
	var err error
	if n := c.r.ContentLength; 0 < n && n <= limit {
		body = make([]byte, n)
		_, err = io.ReadFull(in, body)
	} else {
		body, err = io.ReadAll(in)
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, &fault{http.StatusRequestEntityTooLarge, "invalid_request_error", "parameter_invalid", "",
			"the body is over " + strconv.FormatInt(limit, 10) + " bytes"}
	}
	if err != nil {
		return nil, invalid("", "the body could not be read: send it whole")
	}
	return body, nil
}

// decode reads the body as JSON into in, strictly.
func (c *call) decode(in any) error {
	body, err := c.read(maxBody)
	if err != nil {
		return err
	}
	return decodeJSON(body, in)
}

// decodeOptional is decode where no body at all is fine.
func (c *call) decodeOptional(in any) error {
	body, err := c.read(maxBody)
	if err != nil || len(body) == 0 {
		return err
	}
	return decodeJSON(body, in)
}

func decodeJSON(body []byte, in any) error {
	if !utf8.Valid(body) {
		return invalid("", "the body is not UTF-8")
	}
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	err := d.Decode(in)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			return invalid("", "the body goes on after its JSON object")
		}
		if name := otherCase(body); name != "" {
			return unknown(name)
		}
		return nil
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) && wrong.Field == "" {
		return invalid("", "what is sent must be an object, not "+article(wrong.Value))
	}
	if errors.As(err, &wrong) {
		field, _, _ := strings.Cut(wrong.Field, "metadata.") // whose names are the caller's
		if own, rest, ok := strings.Cut(field, "."); ok && own != strings.ToLower(own) {
			field = rest // own names a struct that is embedded, not a field of the caller's
		}
		if field == "" {
			field = "metadata"
		}
		return invalid(field, field+" must be "+article(wrong.Type.String())+", not "+article(wrong.Value))
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return unknown(strings.Trim(field, `"`))
	}
	return invalid("", "the body is not a JSON object: "+brief(strings.TrimPrefix(err.Error(), "json: ")))
}

func unknown(name string) error {
	name = brief(name)
	return &fault{http.StatusBadRequest, "invalid_request_error", "parameter_unknown", name, "unknown parameter: " + name}
}

// brief keeps what a caller sent from filling the answer.
func brief(s string) string {
	if len(s) > 100 {
		return strings.ToValidUTF8(s[:100], "") + "…"
	}
	return s
}

// otherCase finds a field that encoding/json took for one of ours although its case is another. All of ours
// are in lower case, so a body without a capital has none, and most bodies are not read twice.
func otherCase(body []byte) string {
	if !slices.ContainsFunc(body, func(b byte) bool { return 'A' <= b && b <= 'Z' || b >= utf8.RuneSelf || b == '\\' }) {
		return ""
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return ""
	}
	for name, value := range fields {
		if strings.ContainsFunc(name, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') }) {
			return name
		}
		if name != "metadata" && value[0] == '{' {
			if within := otherCase(value); within != "" {
				return within
			}
		}
	}
	return ""
}

// article names a Go type in JSON's words.
func article(kind string) string {
	kind = strings.TrimLeft(kind, "*")
	switch {
	case kind == "string":
		return "a string"
	case strings.HasPrefix(kind, "number"):
		return "a number"
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		return "a whole number"
	case kind == "bool":
		return "true or false"
	case kind == "array", strings.HasPrefix(kind, "[]"):
		return "a list"
	case kind == "map[string]string":
		return "an object of strings"
	default:
		return "an object"
	}
}

// text refuses a text that is too long or that no database takes.
func text(param, s string, most int) error {
	if !utf8.ValidString(s) {
		return invalid(param, param+" is not UTF-8")
	}
	if len(s) > most {
		return invalid(param, param+" is longer than "+strconv.Itoa(most)+" bytes")
	}
	if strings.IndexByte(s, 0) >= 0 {
		return invalid(param, param+" has a NUL character in it")
	}
	return nil
}

// texts refuses the first of several that is not fit: name, value, name, value …
func texts(pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		if err := text(pairs[i], pairs[i+1], maxText); err != nil {
			return err
		}
	}
	return nil
}

// field is one that may be left out, but not sent empty: whoever does meant to send something.
type field struct {
	name  string
	value *string
}

// filled refuses the first field that was sent empty.
func filled(fields ...field) error {
	for _, f := range fields {
		if f.value != nil && *f.value == "" {
			return invalid(f.name, f.name+" is empty: leave it out, or say something")
		}
	}
	return nil
}

// amount reads a decimal string.
func amount(param string, s *string) (ledger.Decimal, error) {
	if s == nil {
		return ledger.Decimal{}, missing(param)
	}
	d, ok := ledger.ParseDecimal(*s)
	if !ok {
		shown := *s
		if len(shown) > 40 {
			shown = shown[:40] + "…"
		}
		return ledger.Decimal{}, invalid(param, param+" must be a decimal string such as \"12.5\", not "+strconv.Quote(shown))
	}
	return d, nil
}

func optionalAmount(param string, s *string) (*ledger.Decimal, error) {
	if s == nil {
		return nil, nil
	}
	d, err := amount(param, s)
	return &d, err
}

// when reads an RFC 3339 time.
func when(param string, s *string) (*time.Time, error) {
	if s == nil {
		return nil, nil
	}
	at, err := time.Parse(time.RFC3339Nano, *s)
	if err != nil || at.Year() < 1970 || at.Year() > 9999 {
		return nil, invalid(param, param+" must be an RFC 3339 time such as 2026-01-31T12:00:00Z")
	}
	return &at, nil
}

// metadata checks a caller's metadata by Stripe's own limits and answers it in one fixed form; "" for none.
func metadata(m map[string]string) (string, error) {
	if len(m) == 0 {
		return "", nil
	}
	if len(m) > 50 {
		return "", invalid("metadata", "metadata has more than 50 keys")
	}
	for k, v := range m {
		if len(k) > 40 {
			return "", invalid("metadata", "a key of metadata is longer than 40 bytes")
		}
		if err := texts("metadata", k, "metadata", v); err != nil {
			return "", err
		}
	}
	b, err := encode(m) // sorts the keys
	return strings.TrimSuffix(string(b), "\n"), err
}

// page reads a list's limit and starting_after.
func (c *call) page() (limit int, after string, err error) {
	limit = 20
	if s := c.query.Get("limit"); c.query.Has("limit") {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > 100 {
			return 0, "", invalid("limit", "limit must be 1 to 100")
		}
	}
	after = c.query.Get("starting_after")
	return limit, after, text("starting_after", after, maxText)
}

// pageOf is the page of a list that was read whole, of one object more than limit where there is more.
func pageOf[T any](all []T, id func(*T) string, limit int, after string) ([]T, error) {
	if after != "" {
		i := slices.IndexFunc(all, func(v T) bool { return id(&v) == after })
		if i < 0 {
			return nil, &fault{http.StatusNotFound, "invalid_request_error", "resource_missing", "starting_after", "starting_after: this list has no '" + after + "'"}
		}
		all = all[i+1:]
	}
	return all[:min(len(all), limit+1)], nil
}

// list is a page of a list; objects holds one more than limit where there is more.
func list[T any](objects []T, limit int) any {
	more := len(objects) > limit
	if more {
		objects = objects[:limit]
	}
	if objects == nil {
		objects = []T{}
	}
	return struct {
		Object  string `json:"object"`
		Data    []T    `json:"data"`
		HasMore bool   `json:"has_more"`
	}{"list", objects, more}
}

// stamp is how a time is written.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }

func optionalStamp(t *time.Time) *string {
	if t == nil {
		return nil
	}
	s := stamp(*t)
	return &s
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
