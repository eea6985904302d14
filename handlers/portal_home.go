package handlers

import (
	"net/http"
	"slices"
	"sync"
	"time"

	"lockstep/handlers/pages"
	"lockstep/ledger"
)

// maxPortalWallets bounds the home page; nobody has as many assets.
const maxPortalWallets = 20

// walletView is a wallet as its customer sees it.
type walletView struct {
	ledger.Wallet
	Expiry *ledger.Expiry
	Runway string // how long it lasts, in words; "" where nobody can say
	Empty  bool
	Rule   *ruleView // nil: it has none
	Priced bool      // it can be bought
}

// ruleView is an auto top-up rule as its customer sees it.
type ruleView struct {
	ledger.RuleView
	Said  string // what it does, in a sentence
	Pause *pauseView
}

// SpentPart is how much of the limit is used, of a thousand.
func (r ruleView) SpentPart() int64 {
	if r.CapAmount == nil || *r.CapAmount <= 0 {
		return 0
	}
	return min(1000, r.Spent*1000 / *r.CapAmount) // a charge has at most twelve digits
}

// pauseView says why a rule is paused, and what the customer can do.
type pauseView struct {
	Reason string
	Said   string
	URL    string // of the page on which they finish a payment
	Nonce  string
}

// portalHome shows every wallet.
func (s *Server) portalHome(p *portalVisit) error {
	wallets, err := p.own.Wallets(p.ctx())
	if err != nil {
		return err
	}
	wallets = slices.DeleteFunc(wallets, func(w ledger.Wallet) bool { return w.Status == "closed" })
	more := len(wallets) > maxPortalWallets
	wallets = wallets[:min(len(wallets), maxPortalWallets)]
	views := make([]walletView, len(wallets))
	for i := range wallets {
		if views[i], err = s.walletView(p, &wallets[i]); err != nil {
			return err
		}
	}
	return s.show(p.visit, http.StatusOK, "home", pages.Frame{Title: p.locale.T("portal.home.title"), Notice: p.notice(),
		Data: struct {
			Wallets []walletView
			More    bool
			Frozen  bool
		}{views, more, p.cust.Status == "frozen"}})
}

func (s *Server) walletView(p *portalVisit, w *ledger.Wallet) (v walletView, err error) {
	v.Wallet = *w
	f, err := p.own.Forecast(p.ctx(), w)
	if err != nil {
		return v, err
	}
	v.Expiry = f.NextExpiry
	v.Empty = w.Available() <= 0
	young := f.At.Sub(w.CreatedAt) < time.Hour // too young for a rate
	if i := slices.IndexFunc(f.Burn, func(b ledger.Burn) bool { return b.Window == "day" }); i >= 0 && f.Burn[i].MinutesLeft != nil && !v.Empty && !young {
		v.Runway = runway(p.locale, *f.Burn[i].MinutesLeft)
	}
	asset, err := p.own.Asset(p.ctx(), w.Asset)
	if err != nil {
		return v, err
	}
	v.Priced = asset.Currency != ""
	v.Rule, err = s.ruleView(p, w)
	return v, err
}

// runway says how long minutes are, as people do.
func runway(l pages.Locale, minutes int64) string {
	const hour, day = 60, 24 * 60
	switch {
	case minutes < hour:
		return l.N("portal.runway.minutes", int(minutes))
	case minutes < 2*day:
		return l.N("portal.runway.hours", int(minutes/hour))
	case minutes < 1000*day:
		return l.N("portal.runway.days", int(minutes/day))
	default:
		return l.T("portal.runway.years")
	}
}

// ruleView is the rule of a wallet; nil where it has none.
func (s *Server) ruleView(p *portalVisit, w *ledger.Wallet) (*ruleView, error) {
	r, found, err := p.own.Rule(p.ctx(), w)
	if err != nil || !found {
		return nil, err
	}
	v := &ruleView{RuleView: r, Said: ruleSaid(p.locale, w, &r)}
	if r.Enabled && r.PauseReason != nil {
		v.Pause, err = s.pauseView(p, &r)
	}
	return v, err
}

// ruleSaid says what a rule does.
func ruleSaid(l pages.Locale, w *ledger.Wallet, r *ledger.RuleView) string {
	below := l.T("portal.percent", "n", deref(r.ThresholdPercent))
	if r.Threshold != nil {
		below = l.Amount(*r.Threshold, w.Scale, w.Asset)
	}
	if r.Target != nil {
		return l.T("portal.rule.target", "below", below, "target", l.Amount(*r.Target, w.Scale, w.Asset))
	}
	return l.T("portal.rule.amount", "below", below, "amount", l.Amount(deref(r.Amount), w.Scale, w.Asset))
}

func (s *Server) pauseView(p *portalVisit, r *ledger.RuleView) (*pauseView, error) {
	v := &pauseView{Reason: *r.PauseReason, Nonce: nonce()}
	var top ledger.Topup
	if r.PauseTopup != nil {
		var err error
		if top, err = p.own.Topup(p.ctx(), *r.PauseTopup); err != nil && !ledger.IsCode(err, ledger.CodeNotFound) {
			return nil, err
		}
	}
	switch v.Reason {
	case ledger.PausePaymentFailed:
		v.Said = p.locale.T("portal.pause.payment_failed", "why", declineSaid(p.locale, &top))
		if r.PauseUntil != nil {
			v.Said += " " + p.locale.T("portal.pause.again", "at", p.locale.Date(*r.PauseUntil))
		}
	case ledger.PauseActionRequired:
		v.Said = p.locale.T("portal.pause.action_required")
		if top.Status == "action_required" {
			v.URL = deref(top.URL)
		}
	case ledger.PauseSpendCap:
		until := r.To
		if r.PauseUntil != nil {
			until = *r.PauseUntil
		}
		v.Said = p.locale.T("portal.pause.spend_cap", "cap", p.locale.Money(deref(r.CapAmount), r.Currency), "at", p.locale.Date(until))
	default:
		v.Said = p.locale.T("portal.pause."+v.Reason, "merchant", s.Site.Brand.Name)
	}
	return v, nil
}

// declineSaid says why a card was declined, in words for whose card it is. Stripe's code is the bank's; some of them the
// holder must not be told, and then it is declined.
func declineSaid(l pages.Locale, top *ledger.Topup) string {
	for _, code := range []string{deref(top.DeclineCode), deref(top.FailureCode)} {
		if key := "portal.decline." + code; code != "" && l.Has(key) {
			return l.T(key)
		}
	}
	return l.T("portal.decline.other")
}

// notice is what the step before this page came to.
func (p *portalVisit) notice() string {
	if key := "portal.done." + p.query.Get("done"); p.query.Has("done") && p.locale.Has(key) {
		return p.locale.T(key)
	}
	return ""
}

// chartDays and chartPoints are what a chart shows.
const (
	chartDays   = 30
	chartPoints = 90
	chartLife   = 15 * time.Second // how long a chart is shown again as it was
	maxCharts   = 1000
)

// chartCache keeps charts that were drawn a moment ago: they cost a look at the books for each point.
type chartCache struct {
	mu   sync.Mutex
	kept map[string]keptCurve
}

type keptCurve struct {
	curve ledger.Curve
	until time.Time
}

func (c *chartCache) get(wallet string) (ledger.Curve, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.kept[wallet]
	return k.curve, time.Now().Before(k.until)
}

func (c *chartCache) put(wallet string, curve ledger.Curve) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == nil || len(c.kept) >= maxCharts {
		c.kept = make(map[string]keptCurve)
	}
	c.kept[wallet] = keptCurve{curve, time.Now().Add(chartLife)}
}

type chartJSON struct {
	Label  string        `json:"label"`
	X      []int64       `json:"x"`
	Series []chartSeries `json:"series"`
}

type chartSeries struct {
	Label  string         `json:"label"`
	Kind   string         `json:"kind"`
	Values []*chartNumber `json:"values"`
}

// chartNumber is a decimal that is drawn: a chart's is the only amount that is a JSON number.
type chartNumber string

func (n chartNumber) MarshalJSON() ([]byte, error) { return []byte(n), nil }

// portalChart is the balance of the last days, for the chart.
func (s *Server) portalChart(p *portalVisit) error {
	w, err := p.wallet()
	if err != nil {
		return err
	}
	curve, kept := s.charts.get(w.ID)
	if !kept {
		if curve, err = p.own.Curve(p.ctx(), &w, s.Ledger.Now().AddDate(0, 0, -chartDays), chartPoints); err != nil {
			return err
		}
		s.charts.put(w.ID, curve)
	}
	v := chartJSON{Label: p.locale.T("portal.chart.day"), X: []int64{}, Series: []chartSeries{{Label: p.locale.T("portal.chart.balance"), Kind: "area"},
		{Label: p.locale.T("portal.chart.bought"), Kind: "points"}, {Label: p.locale.T("portal.chart.given"), Kind: "points"}}}
	number := func(steps int64) *chartNumber {
		n := chartNumber(ledger.FormatSteps(steps, w.Scale))
		return &n
	}
	for _, point := range curve.Points {
		values := [3]*chartNumber{}
		if point.Known {
			values[0] = number(point.Available)
		}
		for _, m := range curve.Marks {
			if m.At.Equal(point.At) && m.Bought {
				values[1] = values[0]
			} else if m.At.Equal(point.At) {
				values[2] = values[0]
			}
		}
		v.X = append(v.X, point.At.Unix())
		for i := range v.Series {
			v.Series[i].Values = append(v.Series[i].Values, values[i])
		}
	}
	return p.reply(http.StatusOK, v)
}
