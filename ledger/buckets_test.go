package ledger_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// A schema that is spread by bucket keeps its promise only while statements say which bucket they are about: one that
// does not is asked of every node, and what it locks is locked on all. What PostgreSQL's own plan of a statement says
// is taken, not the statement's text: in the plan every scan shows the conditions that it has.

// planNode is what is read of a plan.
type planNode struct {
	Type     string     `json:"Node Type"`
	Relation string     `json:"Relation Name"`
	Alias    string     `json:"Alias"`
	Index    string     `json:"Index Cond"`
	Recheck  string     `json:"Recheck Cond"`
	Filter   string     `json:"Filter"`
	Hash     string     `json:"Hash Cond"`
	Merge    string     `json:"Merge Cond"`
	Join     string     `json:"Join Filter"`
	Plans    []planNode `json:"Plans"`
}

// buckets is how a statement's scans of spread tables are tied to buckets: aliases that are equal in their bucket are
// one set, and a set is named once it is equal to a value.
type buckets struct {
	spread map[string]bool
	tables map[string]string // alias → table
	parent map[string]string // alias → one that it is equal to
	named  map[string]int    // alias → 1: equal to one value, 2: to each of several, such as the rows of an array
}

var bucketIs = regexp.MustCompile(`^(\w+)\.bucket = (\S+)$`)
var isBucket = regexp.MustCompile(`^(\S+) = (\w+)\.bucket$`)
var bucketOfAlias = regexp.MustCompile(`^(\w+)\.bucket$`)
var value = regexp.MustCompile(`^\(*(\$\d+|'[^']*'|\d+)\)*(::\w+)?$`)
var columnOf = regexp.MustCompile(`^(\w+)\.\w+$`)

func (b *buckets) root(alias string) string {
	for b.parent[alias] != "" {
		alias = b.parent[alias]
	}
	return alias
}

func (b *buckets) walk(n planNode) {
	if b.spread[n.Relation] && n.Type != "ModifyTable" { // what is inserted names its bucket: the column has no default
		b.tables[n.Alias] = n.Relation
	}
	for _, p := range n.Plans {
		b.walk(p)
	}
	for _, condition := range []string{n.Index, n.Recheck, n.Filter, n.Hash, n.Merge, n.Join} {
		for _, c := range conjuncts(condition) {
			if m := bucketIs.FindStringSubmatch(c); m != nil {
				b.equal(m[1], m[2])
			} else if m := isBucket.FindStringSubmatch(c); m != nil {
				b.equal(m[2], m[1])
			}
		}
	}
}

// equal hears that the bucket of alias is other.
func (b *buckets) equal(alias, other string) {
	if _, ok := b.tables[alias]; !ok {
		if m := bucketOfAlias.FindStringSubmatch(other); m != nil && b.tables[m[1]] != "" {
			b.equal(m[1], alias+".bucket")
		}
		return
	}
	m := columnOf.FindStringSubmatch(other)
	switch {
	case value.MatchString(other):
		b.named[b.root(alias)] |= 1
	case m == nil: // worked out somehow: nothing to find a node by
	case b.tables[m[1]] == "": // an array's rows, or what a part of the statement that is looked at by itself found
		b.named[b.root(alias)] |= 2
	case bucketOfAlias.MatchString(other):
		if one, two := b.root(alias), b.root(m[1]); one != two {
			b.parent[one] = two
			b.named[two] |= b.named[one]
		}
	}
}

// conjuncts are the conditions that all have to hold.
func conjuncts(s string) []string {
	for len(s) > 1 && s[0] == '(' && closing(s) == len(s)-1 {
		s = s[1 : len(s)-1]
	}
	var all []string
	depth, from := 0, 0
	for i := range len(s) {
		switch {
		case s[i] == '(':
			depth++
		case s[i] == ')':
			depth--
		case depth == 0 && strings.HasPrefix(s[i:], " AND "):
			all, from = append(all, conjuncts(s[from:i])...), i+len(" AND ")
		}
	}
	if from > 0 {
		return append(all, conjuncts(s[from:])...)
	}
	return []string{s}
}

// closing is where the bracket closes that s begins with.
func closing(s string) int {
	depth := 0
	for i, c := range s {
		switch c {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// unnamed are the tables that a statement looks at without saying in which bucket, as PostgreSQL plans it; spread are
// those that it looks at at all, and several says that it names more than one bucket.
func unnamed(t *testing.T, conn *sqlx.Conn, spread map[string]bool, statement string) (tables, unnamed []string, several bool) {
	t.Helper()
	var parameters int
	var plan string
	_, err := conn.ExecContext(ctx, `deallocate all`)
	if err == nil {
		_, err = conn.ExecContext(ctx, `prepare looked_at as `+statement)
	}
	if err == nil {
		err = conn.GetContext(ctx, &parameters, `select cardinality(parameter_types) from pg_prepared_statements where name = 'looked_at'`)
	}
	if err == nil {
		call := `execute looked_at`
		if parameters > 0 {
			call += `(` + strings.TrimSuffix(strings.Repeat(`null, `, parameters), `, `) + `)`
		}
		err = conn.GetContext(ctx, &plan, `explain (verbose, format json) `+call)
	}
	var plans []struct{ Plan planNode }
	if err == nil {
		err = json.Unmarshal([]byte(plan), &plans)
	}
	if err != nil || len(plans) != 1 {
		t.Fatalf("%v: %s", err, statement)
	}
	b := &buckets{spread: spread, tables: map[string]string{}, parent: map[string]string{}, named: map[string]int{}}
	b.walk(plans[0].Plan)
	for alias, table := range b.tables {
		tables = append(tables, table)
		switch named := b.named[b.root(alias)]; {
		case named == 0:
			unnamed = append(unnamed, table)
		case named&1 == 0:
			several = true
		}
	}
	slices.Sort(unnamed)
	return tables, unnamed, several
}

// planner is a connection on which statements are planned as they stand, for whatever their parameters are.
func planner(t *testing.T, l *ledger.Ledger) (conn *sqlx.Conn, spread map[string]bool) {
	t.Helper()
	conn, err := l.DB().Connx(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.ExecContext(ctx, `set plan_cache_mode = force_generic_plan`); err != nil {
		t.Fatal(err)
	}
	var names []string
	if err := conn.SelectContext(ctx, &names, `select i.indrelid::regclass::text from pg_index i
		join pg_attribute a on a.attrelid = i.indrelid and a.attname = 'bucket' and a.attnum = any(i.indkey)
		where i.indisprimary and i.indrelid in (select oid from pg_class where relnamespace = current_schema()::regnamespace)`); err != nil {
		t.Fatal(err)
	}
	spread = make(map[string]bool)
	for _, n := range names {
		spread[n] = true
	}
	if !spread["wallets"] || !spread["entries"] {
		t.Fatalf("spread are %q", names)
	}
	return conn, spread
}

// What is said of a statement by its plan: every way to leave a bucket out is seen, and none of those to name it is
// taken for one.
func TestWhatNamesItsBucket(t *testing.T) {
	t.Parallel()
	conn, spread := planner(t, ledgertest.New(t, ledger.Options{}))
	const array = `unnest($1::smallint[], $2::text[]) u(bucket, id)`
	for statement, want := range map[string]string{
		`select total from wallets where id = $1`:                                                                                                                         "wallets",
		`select total from wallets where bucket = $1 and id = $2`:                                                                                                         "one",
		`select total from wallets where $1 = bucket`:                                                                                                                     "one",
		`select total from wallets where bucket = 7`:                                                                                                                      "one",
		`select total from wallets where bucket = $1 or id = $2`:                                                                                                          "wallets",
		`select total from wallets where bucket > $1`:                                                                                                                     "wallets",
		`select total from wallets where bucket = any($1::smallint[])`:                                                                                                    "wallets",
		`select total from wallets where not (bucket = $1)`:                                                                                                               "wallets",
		`update grants set held = 0 where id = $1`:                                                                                                                        "grants",
		`delete from holds where bucket = $1 and id = $2`:                                                                                                                 "one",
		`select from holds h join wallets w on w.id = h.wallet_id where h.bucket = $1`:                                                                                    "wallets",
		`select from holds h join wallets w on w.bucket = h.bucket and w.id = h.wallet_id`:                                                                                "holds wallets",
		`select from holds h join wallets w on w.bucket = h.bucket and w.id = h.wallet_id and h.bucket = $1`:                                                              "one",
		`select from ` + array + ` join wallets w on w.id = u.id`:                                                                                                         "wallets",
		`select from ` + array + ` join wallets w on w.bucket = u.bucket and w.id = u.id`:                                                                                 "several",
		`select from wallets where (bucket, id) in (select * from ` + array + `)`:                                                                                         "several",
		`select from wallets w where bucket = $1 and exists (select from grants g where g.wallet_id = w.id)`:                                                              "grants",
		`select from wallets w where bucket = $1 and exists (select from grants g where g.bucket = w.bucket and g.wallet_id = w.id)`:                                      "one",
		`with x as (update wallets set held = 0 where bucket = $1 returning bucket, id) select from x join grants g on g.wallet_id = x.id`:                                "grants",
		`insert into holds (bucket, id, wallet_id, amount, parts, expires_at, created_at) select w.bucket, 'a', w.id, 1, '', now(), now() from wallets w where w.id = $1`: "wallets",
		`select from wallets where (bucket, id) in (select * from unnest(array[$1::smallint], array[$2::text]))`:                                                          "several",
		`select from holds h join wallets w on w.bucket = h.amount and h.bucket = $1`:                                                                                     "wallets",
		`select from wallets where bucket = length($1)`:                                                                                                                   "wallets",
		`select code from assets`: "one",
	} {
		_, missing, several := unnamed(t, conn, spread, statement)
		got := "one"
		if len(missing) > 0 {
			got = strings.Join(missing, " ")
		} else if several {
			got = "several"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", statement, got, want)
		}
	}
}

var readsOrWrites = regexp.MustCompile(`(?i)^[\s(]*(select|insert|update|delete|with)\b`)

// Every statement that is sent while credit is spent, held, given back or asked about names its bucket, for every
// table that it looks at; several at once are named by the statements of a lane's batch alone.
func TestHotPathNamesItsBucket(t *testing.T) {
	t.Parallel()
	url := ledgertest.URL(t)
	w := tap(t, url)
	conn, spread := planner(t, ledgertest.New(t, ledger.Options{URL: url}))
	open := func() *ledger.Ledger {
		l, err := ledger.Open(ctx, ledger.Options{URL: w.url})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	l, other := open(), open()
	for i := range 6 {
		newCustomer(t, l, fmt.Sprint("c", i), "100")
	}
	grant(t, l, ledger.GrantInput{Customer: "c1", Amount: dec(t, "1"), Kind: "promotional", ExpiresAt: ref(time.Now().Add(time.Hour))})
	many := func(key string) (ins []ledger.DebitInput) {
		for i := range 6 {
			ins = append(ins, ledger.DebitInput{Customer: fmt.Sprint("c", i), Amount: dec(t, "1"), Once: ledger.Once{Key: key, Request: 1}})
		}
		return ins
	}
	all := func(l *ledger.Ledger, ins []ledger.DebitInput) (err error) {
		for _, r := range l.Debits(ctx, ins) {
			if r.Err != nil {
				err = r.Err
			}
		}
		return err
	}
	var d ledger.Debit
	var h ledger.Hold
	w.take()
	statements := 0
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"debits, the long way", func() error { return all(l, many("a")) }},
		{"debits, from memory", func() error { return all(l, many("b")) }},
		{"debits that another process sent", func() error { return all(other, many("b")) }},
		{"a key that is used again", func() error {
			_, _, err := other.Debit(ctx, ledger.DebitInput{Customer: "c0", Amount: dec(t, "2"), Once: ledger.Once{Key: "a", Request: 2}})
			return refusedWith(err, ledger.CodeKeyReused)
		}},
		{"a debit without a key", func() (err error) {
			d, _, err = l.Debit(ctx, ledger.DebitInput{Customer: "c0", Amount: dec(t, "2"), Metadata: `{"a":"b"}`})
			return err
		}},
		{"a debit that is refused", func() error {
			_, _, err := l.Debit(ctx, ledger.DebitInput{Customer: "c0", Amount: dec(t, "2000")})
			return refusedWith(err, ledger.CodeInsufficient)
		}},
		{"a check", func() error {
			_, _, err := l.CanSpend(ctx, "c0", "", dec(t, "1"))
			return err
		}},
		{"a hold", func() (err error) {
			h, _, err = l.CreateHold(ctx, ledger.HoldInput{Customer: "c0", Amount: dec(t, "9"), ExpiresIn: time.Hour}, ledger.Once{Key: "h", Request: 1})
			return err
		}},
		{"its replay", func() error {
			_, replayed, err := other.CreateHold(ctx, ledger.HoldInput{Customer: "c0", Amount: dec(t, "9"), ExpiresIn: time.Hour}, ledger.Once{Key: "h", Request: 1})
			if !replayed {
				t.Error("the hold was made again")
			}
			return err
		}},
		{"extending it", func() error { _, err := l.ExtendHold(ctx, h.ID, time.Hour, ledger.Once{}); return err }},
		{"capturing of it", func() error {
			_, err := l.CaptureHold(ctx, h.ID, ledger.CaptureInput{Amount: decp(t, "4")}, ledger.Once{})
			return err
		}},
		{"capturing more", func() error {
			_, err := l.CaptureHold(ctx, h.ID, ledger.CaptureInput{Amount: decp(t, "6"), OnExcess: "wallet"}, ledger.Once{})
			return err
		}},
		{"releasing one", func() (err error) {
			if h, _, err = l.CreateHold(ctx, ledger.HoldInput{Customer: "c2", Amount: dec(t, "3"), ExpiresIn: time.Hour}, ledger.Once{}); err != nil {
				return err
			}
			_, err = l.ReleaseHold(ctx, h.ID, ledger.Once{})
			return err
		}},
		{"a reversal", func() error {
			_, _, err := l.Reverse(ctx, d.ID, nil, "", ledger.Once{Key: "r", Request: 1})
			return err
		}},
		{"a rule", func() error {
			_, err := l.PutRule(ctx, wallet(t, l, "c3").ID, ledger.RuleInput{Enabled: true, Threshold: decp(t, "50"), Amount: decp(t, "20"),
				Cap: &ledger.Money{Amount: 5000, Currency: "usd"}, CapInterval: "month", MinimumCharge: func(string) int64 { return 50 }})
			return err
		}},
		{"a debit that calls for a top-up", func() error { _, _, err := debit(t, l, "c3", "60", "low"); return err }},
		{"what a customer has", func() error {
			_, err := l.Customer(ctx, "c3")
			return err
		}},
		{"its books", func() error {
			x := wallet(t, l, "c3")
			_, err := l.Entries(ctx, &x, "", 20)
			if err == nil {
				_, _, err = l.BalanceAt(ctx, &x, time.Now())
			}
			return err
		}},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		looked := 0
		for _, statement := range w.take() {
			if !readsOrWrites.MatchString(statement) {
				continue
			}
			tables, missing, several := unnamed(t, conn, spread, statement)
			looked += len(tables)
			statements++
			if len(missing) > 0 {
				t.Errorf("%s: %q are looked at in every bucket by\n%s", step.name, missing, statement)
			}
			if several && !w.ofLane(statement) && statement != ledger.LookSQL && statement != ledger.PostingSQL { // those take arrays
				t.Errorf("%s: several buckets are named by\n%s", step.name, statement)
			}
		}
		if looked == 0 {
			t.Errorf("%s: nothing was sent", step.name)
		}
	}
	t.Logf("%d statements", statements)
}

func ref[T any](v T) *T { return &v }

func refusedWith(err error, code ledger.Code) error {
	if ledger.IsCode(err, code) {
		return nil
	}
	return fmt.Errorf("want %s: %w", code, err)
}
