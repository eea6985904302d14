package stripesim

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// params reads a request's parameters. Each reader marks its parameter as
// known; done reports the first bad one, or one that nobody read. Nothing may
// be changed before done has said that all is well.
type params struct {
	name string // "" at the top, otherwise the hash, as in "card"
	tree map[string]any
	read map[string]bool
	subs []*params
	bad  **apiError // shared with the hashes inside
}

// newParams builds the tree that Stripe's bracket notation spells:
// a[b][c]=1, a[]=1, a[0][b]=1.
func newParams(form url.Values) *params {
	tree := map[string]any{}
	var failed *apiError
	p := &params{tree: tree, read: map[string]bool{}, bad: &failed}
	for _, key := range slices.Sorted(maps.Keys(form)) {
		path, ok := splitKey(key)
		if !ok {
			p.fail(badRequest("", key, "Invalid parameter name: %s", key))
			continue
		}
		values := form[key]
		if path[len(path)-1] == "" { // a[]=1&a[]=2
			for i, v := range values {
				path[len(path)-1] = strconv.Itoa(i)
				p.plant(path, v)
			}
			continue
		}
		p.plant(path, values[len(values)-1])
	}
	return p
}

func splitKey(key string) ([]string, bool) {
	head, rest, found := strings.Cut(key, "[")
	if head == "" {
		return nil, false
	}
	path := []string{head}
	if !found {
		return path, true
	}
	if !strings.HasSuffix(rest, "]") {
		return nil, false
	}
	return append(path, strings.Split(strings.TrimSuffix(rest, "]"), "][")...), true
}

func (p *params) plant(path []string, value string) {
	if !utf8.ValidString(value) {
		p.fail(badRequest("", path[0], "Invalid string: not UTF-8"))
		return
	}
	node := p.tree
	for _, step := range path[:len(path)-1] {
		next, ok := node[step].(map[string]any)
		if !ok {
			if _, leaf := node[step]; leaf {
				p.fail(badRequest("", path[0], "Invalid hash"))
				return
			}
			next = map[string]any{}
			node[step] = next
		}
		node = next
	}
	node[path[len(path)-1]] = value
}

func (p *params) fail(e *apiError) {
	if *p.bad == nil {
		*p.bad = e
	}
}

func (p *params) full(key string) string {
	if p.name == "" {
		return key
	}
	return p.name + "[" + key + "]"
}

func (p *params) has(key string) bool {
	_, ok := p.tree[key]
	return ok
}

// str reads an optional string; absent and empty are both "".
func (p *params) str(key string) string {
	p.read[key] = true
	switch v := p.tree[key].(type) {
	case nil:
		return ""
	case string:
		if utf8.RuneCountInString(v) > 5000 { // Stripe: "Invalid string: must be at most 5000 characters"
			p.fail(badRequest("", p.full(key), "Invalid string: must be at most 5000 characters"))
		}
		return v
	default:
		p.fail(badRequest("", p.full(key), "Invalid string: {...}"))
		return ""
	}
}

// need reads a required string.
func (p *params) need(key string) string {
	v := p.str(key)
	if !p.has(key) {
		p.fail(missing(p.full(key)))
	} else if v == "" {
		p.fail(cannotUnset(p.full(key)))
	}
	return v
}

func cannotUnset(name string) *apiError {
	return badRequest("parameter_invalid_empty", name,
		"You passed an empty string for '%s'. We assume empty values are an attempt to unset a parameter; however '%s' cannot be unset. You should remove '%s' from your request or supply a non-empty value.", name, name, name)
}

// ref reads an optional value, which cannot be unset.
func (p *params) ref(key string) string {
	if !p.has(key) {
		p.read[key] = true
		return ""
	}
	return p.need(key)
}

// set overwrites target when the parameter was sent; empty unsets it.
func (p *params) set(key string, target *opt) {
	v := p.str(key)
	if p.has(key) {
		*target = opt(v)
	}
}

// integer reads an optional integer and reports whether it was sent.
func (p *params) integer(key string) (int64, bool) {
	v := p.ref(key)
	if !p.has(key) || v == "" {
		return 0, false
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		p.fail(badRequest("parameter_invalid_integer", p.full(key), "Invalid integer: %s", v))
		return 0, false
	}
	return n, true
}

func (p *params) needInt(key string) int64 {
	n, ok := p.integer(key)
	if !ok && !p.has(key) {
		p.fail(missing(p.full(key)))
	}
	return n
}

// positive reads an optional amount of at least 1.
func (p *params) positive(key string) (int64, bool) {
	n, ok := p.integer(key)
	if ok && n < 1 {
		p.fail(badRequest("parameter_invalid_integer", p.full(key), "This value must be greater than or equal to 1."))
	}
	return n, ok
}

func (p *params) boolean(key string) bool {
	v := p.ref(key)
	switch v {
	case "", "false":
		return false
	case "true":
		return true
	}
	p.fail(badRequest("", p.full(key), "Invalid boolean: %s", v))
	return false
}

func (p *params) enum(key string, allowed ...string) string {
	v := p.ref(key)
	if v != "" && !slices.Contains(allowed, v) {
		last := len(allowed) - 1
		text := allowed[0]
		if last > 0 {
			text = strings.Join(allowed[:last], ", ") + ", or " + allowed[last]
		}
		p.fail(badRequest("", p.full(key), "Invalid %s: must be one of %s", p.full(key), text))
	}
	return v
}

// currency reads a three-letter code, lowercase as Stripe answers it.
func (p *params) currency(key string, required bool) string {
	v := ""
	if required {
		v = p.need(key)
	} else {
		v = p.ref(key)
	}
	v = strings.ToLower(v)
	if v != "" && !currencies[v] {
		p.fail(badRequest("", p.full(key), "Invalid currency: %s. Stripe currently supports these currencies: usd, aed, all, amd, ang, aud, ...", v))
	}
	return v
}

// hash reads a nested object; nil when absent or unset with an empty string.
func (p *params) hash(key string) *params {
	p.read[key] = true
	switch v := p.tree[key].(type) {
	case nil:
		return nil
	case map[string]any:
		sub := &params{name: p.full(key), tree: v, read: map[string]bool{}, bad: p.bad}
		p.subs = append(p.subs, sub)
		return sub
	case string:
		if v != "" {
			p.fail(badRequest("", p.full(key), "Invalid hash"))
		}
	}
	return nil
}

// array reads the elements of a list, each as a hash.
func (p *params) array(key string) []*params {
	all := p.hash(key)
	if all == nil {
		return nil
	}
	var out []*params
	for _, i := range indexes(all.tree) {
		if sub := all.hash(i); sub != nil {
			out = append(out, sub)
		}
	}
	return out
}

// list reads a list of strings. A single value stands for a list of one.
func (p *params) list(key string) []string {
	if v, ok := p.tree[key].(string); ok {
		p.read[key] = true
		if v == "" {
			return nil
		}
		return []string{v}
	}
	all := p.hash(key)
	if all == nil {
		return nil
	}
	var out []string
	for _, i := range indexes(all.tree) {
		out = append(out, all.str(i))
	}
	return out
}

func indexes(tree map[string]any) []string {
	return slices.SortedFunc(maps.Keys(tree), func(a, b string) int {
		x, _ := strconv.Atoi(a)
		y, _ := strconv.Atoi(b)
		return x - y
	})
}

// metadata merges what was sent into a copy of old: an empty value drops its
// key, an empty hash drops all.
func (p *params) metadata(old map[string]string) map[string]string {
	out := maps.Clone(old)
	if out == nil {
		out = map[string]string{}
	}
	if v, ok := p.tree["metadata"].(string); ok && v == "" {
		p.read["metadata"] = true
		return map[string]string{}
	}
	sent := p.hash("metadata")
	if sent == nil {
		return out
	}
	for _, k := range slices.Sorted(maps.Keys(sent.tree)) {
		v := sent.str(k)
		switch {
		case utf8.RuneCountInString(k) > 40:
			p.fail(badRequest("", "metadata", "Invalid metadata key: %s. Metadata keys must be at most 40 characters.", k))
		case utf8.RuneCountInString(v) > 500:
			p.fail(badRequest("", sent.full(k), "Metadata values can have up to 500 characters, but you passed in a value that is %d characters. Invalid value: %.20s...", utf8.RuneCountInString(v), v))
		case v == "":
			delete(out, k)
		default:
			out[k] = v
		}
	}
	if len(out) > 50 {
		p.fail(badRequest("", "metadata", "You can only have 50 metadata keys."))
	}
	return out
}

// ignore accepts parameters that Stripe knows and the simulator has no use for.
func (p *params) ignore(keys ...string) {
	for _, k := range keys {
		p.read[k] = true
	}
}

// done reports the first thing wrong with the parameters.
func (p *params) done() *apiError {
	if *p.bad != nil {
		return *p.bad
	}
	for _, k := range slices.Sorted(maps.Keys(p.tree)) {
		if !p.read[k] {
			return badRequest("parameter_unknown", p.full(k), "Received unknown parameter: %s", p.full(k))
		}
	}
	for _, sub := range p.subs {
		if err := sub.done(); err != nil {
			return err
		}
	}
	return nil
}

// currencies that Stripe settles or presents; minimumCharge knows the smallest payment of
// some of them.
var currencies = func() map[string]bool {
	out := map[string]bool{}
	for _, c := range strings.Fields(`usd aed all amd ang aud awg azn bam bbd bdt bgn bmd bnd brl bsd bwp byn bzd cad cdf chf clp
		cny cop crc czk dkk dop dzd egp etb eur fjd gbp gel gip gyd hkd htg huf idr ils inr isk jmd jpy kes khr krw kyd kzt lbp lkr lrd
		lsl mad mdl mga mkd mmk mnt mop mvr mwk mxn myr mzn nad ngn nio nok npr nzd pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar
		sbd scr sek sgd sll sos szl thb tjs top try ttd twd tzs uah ugx uyu uzs vnd vuv wst xaf xcd xof xpf yer zar zmw`) {
		out[c] = true
	}
	return out
}()

// money renders an amount as Stripe's messages do.
func money(amount int64, currency string) string {
	sign := ""
	if amount < 0 {
		sign, amount = "-", -amount
	}
	if currency == "usd" {
		return fmt.Sprintf("%s$%d.%02d", sign, amount/100, amount%100)
	}
	return fmt.Sprintf("%s%d.%02d %s", sign, amount/100, amount%100, currency)
}
