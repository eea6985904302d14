package handlers

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"lockstep/ledger"
)

// walletOf is the one wallet of acme.
func (o *operator) walletOf() ledger.Wallet {
	o.t.Helper()
	ref, err := o.s.Ledger.Resolve(o.t.Context(), "acme")
	must(o.t, err)
	all, err := o.s.Ledger.Wallets(o.t.Context(), ref)
	if err != nil || len(all) != 1 {
		o.t.Fatalf("%d wallets: %v", len(all), err)
	}
	return all[0]
}

func decimalOf(t *testing.T, text string) ledger.Decimal {
	t.Helper()
	d, ok := ledger.ParseDecimal(text)
	if !ok {
		t.Fatalf("%s is no decimal", text)
	}
	return d
}

// Why an operator acted stands in the audit trail, and nowhere that the customer reads: not in an entry, not in a grant.
func TestWhyIsForTheTrailAlone(t *testing.T) {
	t.Parallel()
	o := atConsole(t)
	w := o.walletOf()
	d, _, err := o.s.Ledger.Debit(t.Context(), ledger.DebitInput{Customer: "acme", Amount: decimalOf(t, "5")})
	must(t, err)
	g, _, err := o.s.Ledger.Grant(t.Context(), ledger.GrantInput{Customer: "acme", Amount: decimalOf(t, "7")}, ledger.Once{})
	must(t, err)
	const why = "we suspect fraud"
	wallet := "/console/wallets/" + w.ID
	for _, act := range []struct {
		path   string
		form   url.Values
		reason string
	}{
		{wallet + "/grant", url.Values{"amount": {"1"}, "kind": {"promotional"}}, "console_grant"},
		{wallet + "/adjust", url.Values{"amount": {"2"}, "way": {"give"}}, "console_adjustment"},
		{wallet + "/adjust", url.Values{"amount": {"3"}, "way": {"take"}}, "console_adjustment"},
		{"/console/debits/" + d.ID + "/reverse", url.Values{"amount": {"4"}}, "console_reversal"},
		{"/console/grants/" + g.ID + "/void", nil, "console_void"},
	} {
		_, confirm := o.preview(act.path, act.form, http.StatusOK)
		confirm.Set("reason", why)
		has(t, act.path, o.get(o.post(act.path, confirm, http.StatusSeeOther).Header().Get("Location")), why, "done")
		var last string
		must(t, o.s.Ledger.DB().Get(&last, `select reason from entries order by created_at desc, seq desc limit 1`))
		if last != act.reason {
			t.Errorf("%s: the entry's reason is %q", act.path, last)
		}
	}
	for _, table := range []string{"entries", "grants"} {
		var said int
		must(t, o.s.Ledger.DB().Get(&said, `select count(*) from `+table+` e where e::text like '%' || $1 || '%'`, why))
		if said > 0 {
			t.Errorf("%d rows of %s say why", said, table)
		}
	}
	if page := o.get(wallet); strings.Contains(page, why) {
		t.Error("the wallet's page says why")
	}
	has(t, "the trail", o.get("/console/audit"), why)
}
