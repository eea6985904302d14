package handlers

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"lockstep/handlers/pages"
	"lockstep/ledger"
)

// outcome is what the trail says of the act of a form.
func (o *operator) outcome(form url.Values) ledger.Act {
	o.t.Helper()
	a, found, err := o.s.Ledger.Act(o.t.Context(), form.Get("act"))
	if err != nil || !found {
		o.t.Fatalf("in the trail: %t %v", found, err)
	}
	return a
}

// exec changes the database behind the service's back.
func (o *operator) exec(statement string, args ...any) {
	o.t.Helper()
	_, err := o.s.Ledger.DB().Exec(statement, args...)
	must(o.t, err)
}

// begun writes the row of an act that is not done, as a crash in between leaves it.
func (o *operator) begun(action string, form url.Values) {
	o.t.Helper()
	kept, found, err := o.s.Ledger.Previewed(o.t.Context(), form.Get("act"))
	if err != nil || !found {
		o.t.Fatalf("shown: %t %v", found, err)
	}
	_, _, err = o.s.Ledger.BeginAct(o.t.Context(), ledger.Act{ID: kept.ID, Action: action, Customer: "acme", Object: "wal_1", Request: kept.Request, Shown: kept.Shown})
	must(o.t, err)
}

func (o *operator) freeze(status string) {
	o.t.Helper()
	ref, err := o.s.Ledger.Resolve(o.t.Context(), "acme")
	must(o.t, err)
	_, err = o.s.Ledger.ChangeCustomer(o.t.Context(), ref, ledger.CustomerChange{Status: &status})
	must(o.t, err)
}

// What an act came to is written also when whoever sent its form has gone while it was done.
func TestOutcomeIsWrittenForWhoHasGone(t *testing.T) {
	t.Parallel()
	o := atConsole(t)
	ctx, gone := context.WithCancel(t.Context())
	v := &visit{call: &call{w: httptest.NewRecorder(), r: httptest.NewRequest("POST", "/console", nil).WithContext(ctx), id: "req_1"}, locale: pages.LocaleOf("").English()}
	row, first, err := o.s.Ledger.BeginAct(t.Context(), ledger.Act{ID: o.s.Ledger.NewActID(), Action: "charge", Request: 1, Shown: "{}"})
	must(t, err)
	err = o.s.perform(v, &order{do: func(ledger.Once) (deed, error) { gone(); return deed{said: "Charged.", result: "top_1"}, nil }}, row, first)
	must(t, err)
	if a := o.outcome(url.Values{"act": {row.ID}}); a.Outcome != "done" || a.Result != "top_1" {
		t.Errorf("in the trail: %+v", a)
	}
}

// An act that was done, and whose outcome was lost, is written down as done when its form is sent again, also where a second
// one would be refused by now.
func TestDoneIsNotRefused(t *testing.T) {
	t.Parallel()
	o := atConsole(t)
	w := o.walletOf()
	_, take := o.preview("/console/wallets/"+w.ID+"/adjust", url.Values{"way": {"take"}, "amount": {"10"}}, http.StatusOK)
	_, give := o.preview("/console/wallets/"+w.ID+"/grant", url.Values{"amount": {"10"}, "kind": {"promotional"}}, http.StatusOK)
	takeAt, giveAt := "/console/wallets/"+w.ID+"/adjust", "/console/wallets/"+w.ID+"/grant"
	o.post(takeAt, take, http.StatusSeeOther)
	o.post(giveAt, give, http.StatusSeeOther)
	taken, given := o.outcome(take).Result, o.outcome(give).Result
	lose := func(form url.Values) {
		o.exec(`update acts set outcome = '', said = '', result = '', ended_at = null where id = $1`, form.Get("act"))
	}
	lose(take)
	lose(give)
	o.freeze("frozen") // of whom nothing is taken
	for range 2 {
		o.post(takeAt, take, http.StatusSeeOther)
		o.post(giveAt, give, http.StatusSeeOther)
	}
	if a := o.outcome(take); a.Outcome != "done" || a.Result != taken || !strings.HasPrefix(taken, "deb_") {
		t.Errorf("taken away: %+v", a)
	}
	if a := o.outcome(give); a.Outcome != "done" || a.Result != given {
		t.Errorf("given: %+v", a)
	}

	// An endpoint that is gone is deleted.
	address := "https://example.com/hook"
	e, err := o.s.Ledger.CreateEndpoint(t.Context(), ledger.EndpointInput{URL: &address, Events: []string{"*"}}, ledger.Once{})
	must(t, err)
	at := "/console/webhooks/" + e.ID + "/delete"
	_, mine := o.preview(at, nil, http.StatusOK)
	_, other := o.preview(at, nil, http.StatusOK)
	o.post(at, mine, http.StatusSeeOther)
	lose(mine)
	o.post(at, mine, http.StatusSeeOther)
	if a := o.outcome(mine); a.Outcome != "done" {
		t.Errorf("deleted: %+v", a)
	}
	o.post(at, other, http.StatusSeeOther)
	if a := o.outcome(other); a.Outcome != "refused" {
		t.Errorf("deleted by another before: %+v", a)
	}
}

// An act that is refused when its form is sent again is written down as refused only when nothing was done under its key,
// and nothing can be any more; where nobody can tell, its outcome stays unknown, and the page says so.
func TestUnknownIsNotRefused(t *testing.T) {
	t.Parallel()
	o := atConsole(t)
	at := "/console/wallets/" + o.walletOf().ID + "/adjust"
	_, form := o.preview(at, url.Values{"way": {"take"}, "amount": {"10"}}, http.StatusOK)
	o.begun("adjust", form)
	o.freeze("frozen")
	page := o.post(at, form, http.StatusConflict).Body.String() // the first one may be at work still
	has(t, "sent again at once", page, "may have been done then", "Look at wal_1", "it is refused: customer acme is frozen")
	if a := o.outcome(form); a.Outcome != "" {
		t.Errorf("sent again at once: %+v", a)
	}
	o.exec(`update acts set at = at - interval '2 minutes'`)
	o.post(at, form, http.StatusSeeOther)
	if a := o.outcome(form); a.Outcome != "refused" || !strings.Contains(a.Said, "wallet") {
		t.Errorf("sent again later: %+v", a)
	}

	// Without a key nothing tells, however long ago it was.
	v := &visit{call: &call{w: httptest.NewRecorder(), r: httptest.NewRequest("POST", "/console", nil), id: "req_1"}, locale: pages.LocaleOf("").English()}
	row, _, err := o.s.Ledger.BeginAct(t.Context(), ledger.Act{ID: o.s.Ledger.NewActID(), Action: "cancel_topup", Request: 1, Shown: "{}"})
	must(t, err)
	row.At = row.At.Add(-time.Hour)
	again := &order{do: func(ledger.Once) (deed, error) { return deed{}, invalid("", "it is canceled already") }}
	if status, body := o.s.explain(v.call, o.s.perform(v, again, row, false)); status != http.StatusConflict || !strings.Contains(body.Message, "canceled already") {
		t.Errorf("without a key: %d %s", status, body.Message)
	}
	if a := o.outcome(url.Values{"act": {row.ID}}); a.Outcome != "" {
		t.Errorf("without a key: %+v", a)
	}
}

// What is done is what was shown: where it would do something else by now, that is shown, and nothing is done.
func TestWhatIsShownIsDone(t *testing.T) {
	t.Parallel()
	o := atConsole(t)
	g, _, err := o.s.Ledger.Grant(t.Context(), ledger.GrantInput{Customer: "acme", Amount: decimalOf(t, "40"), Priority: 1}, ledger.Once{})
	must(t, err)
	at := "/console/grants/" + g.ID + "/void"
	shown, form := o.preview(at, nil, http.StatusOK)
	has(t, "the preview", shown, "$40.00")
	age := func() { o.exec(`update act_previews set at = at - interval '1 minute'`) }
	_, _, err = o.s.Ledger.Debit(t.Context(), ledger.DebitInput{Customer: "acme", Amount: decimalOf(t, "7")})
	must(t, err)
	age()
	page := o.post(at, form, http.StatusConflict).Body.String()
	has(t, "changed since", page, "has changed since it was shown", "$33.00", "a test", form.Get("act"))
	if strings.Contains(page, "$40.00") {
		t.Error("it shows the old figures")
	}
	left := func() ledger.Grant {
		t.Helper()
		g, err := o.s.Ledger.GrantByID(t.Context(), g.ID)
		must(t, err)
		return g
	}
	if _, found, err := o.s.Ledger.Act(t.Context(), form.Get("act")); found || err != nil || left().Remaining == 0 {
		t.Errorf("it was begun: %t %v, %+v", found, err, left())
	}
	has(t, "done", o.get(o.post(at, form, http.StatusSeeOther).Header().Get("Location")), "is void", "$33.00")
	if left().Remaining != 0 {
		t.Errorf("it is not void: %+v", left())
	}
	age()
	o.post(at, form, http.StatusSeeOther) // done is done, whatever it would do now

	// What is the same by now is done, however long ago it was shown; what is refused by now says so, and is not begun.
	wallet := "/console/wallets/" + o.walletOf().ID
	_, same := o.preview(wallet+"/grant", url.Values{"amount": {"1"}, "kind": {"promotional"}}, http.StatusOK)
	_, take := o.preview(wallet+"/adjust", url.Values{"way": {"take"}, "amount": {"2"}}, http.StatusOK)
	age()
	o.post(wallet+"/grant", same, http.StatusSeeOther)
	if a := o.outcome(same); a.Outcome != "done" {
		t.Errorf("the same: %+v", a)
	}
	o.freeze("frozen")
	o.post(wallet+"/adjust", take, http.StatusConflict)
	if _, found, err := o.s.Ledger.Act(t.Context(), take.Get("act")); found || err != nil {
		t.Errorf("refused by now: %t %v", found, err)
	}
}

// Credit is taken from the wallet that was shown, or from none: another may have come to pay meanwhile.
func TestTakenFromTheWalletShown(t *testing.T) {
	t.Parallel()
	o := atConsole(t)
	w := o.walletOf()
	other, _, err := o.s.Ledger.CreateWallet(t.Context(), ledger.WalletInput{Customer: "acme", Asset: w.Asset, Scope: "usage"}, ledger.Once{})
	must(t, err)
	at := "/console/wallets/" + w.ID + "/adjust"
	_, form := o.preview(at, url.Values{"way": {"take"}, "amount": {"5"}}, http.StatusOK)
	_, _, err = o.s.Ledger.Grant(t.Context(), ledger.GrantInput{Customer: "acme", Wallet: other.ID, Amount: decimalOf(t, "50")}, ledger.Once{})
	must(t, err)
	o.post(at, form, http.StatusSeeOther)
	if a := o.outcome(form); a.Outcome != "refused" || !strings.Contains(a.Said, other.ID) {
		t.Errorf("in the trail: %+v", a)
	}
	for _, id := range []string{w.ID, other.ID} {
		now, err := o.s.Ledger.Wallet(t.Context(), id)
		must(t, err)
		if now.Used != 0 {
			t.Errorf("%d was taken from %s", now.Used, id)
		}
	}
	if said := takenFrom(w.ID, other.ID); !strings.Contains(said, other.ID) || strings.Contains(takenFrom(w.ID, w.ID), "wallet") {
		t.Errorf("it says %q", said)
	}
}
