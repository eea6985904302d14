package ledger

import (
	"context"
	"slices"
	"strconv"
)

// An alert is on while the available balance is below, or above, its threshold. It is told when it goes on, once, and
// again only after it has been off. A wallet's row has the range of balances in which no alert goes on or off, so that
// a debit that stays in it costs nothing more.

// Alert is a level of a wallet's available balance at which somebody is to be told.
type Alert struct {
	Level     string `db:"level"`     // info, warning, critical
	Direction string `db:"direction"` // below, above
	Amount    *int64 `db:"amount"`    // steps; this or Percent
	Percent   *int16 `db:"percent"`   // of what was available right after credit last came in force
	Active    bool   `db:"active"`
}

// AlertInput sets an alert by one of its four thresholds.
type AlertInput struct {
	Level                      string
	Below, Above               *Decimal
	BelowPercent, AbovePercent *int16
}

// AlertFired is what an event tells of an alert that went on.
type AlertFired struct {
	Wallet Wallet
	Alert  Alert
}

// maxAlerts bounds the alerts of one wallet.
const maxAlerts = 10

// alertStates in the order in which they grow worse.
var alertStates = []string{"ok", "info", "warning", "critical", "depleted"}

// alertsOf checks alerts that are to be set on a wallet that counts in scale.
func alertsOf(ins []AlertInput, scale int16, asset string) ([]Alert, error) {
	if len(ins) > maxAlerts {
		return nil, refuse(CodeInvalid, "alerts", "alerts has %d levels; a wallet has at most %d", len(ins), maxAlerts)
	}
	alerts := make([]Alert, len(ins))
	for i, in := range ins {
		var err error
		if alerts[i], err = in.alert("alerts["+strconv.Itoa(i)+"]", scale, asset); err != nil {
			return nil, err
		}
	}
	return alerts, nil
}

func (in AlertInput) alert(param string, scale int16, asset string) (Alert, error) {
	a := Alert{Level: in.Level, Direction: "below"}
	if !slices.Contains(alertStates[1:4], in.Level) {
		return a, refuse(CodeInvalid, param+".level", "%s.level is info, warning or critical", param)
	}
	given := 0
	for _, t := range []struct {
		name    string
		amount  *Decimal
		percent *int16
	}{{"below", in.Below, nil}, {"above", in.Above, nil}, {"below_percent", nil, in.BelowPercent}, {"above_percent", nil, in.AbovePercent}} {
		if t.amount == nil && t.percent == nil {
			continue
		}
		given++
		if t.name[0] == 'a' {
			a.Direction = "above"
		}
		if t.percent != nil {
			if *t.percent < 1 || *t.percent > 1000 {
				return a, refuse(CodeInvalid, param+"."+t.name, "%s.%s is 1 to 1000", param, t.name)
			}
			a.Percent = t.percent
			continue
		}
		n, err := stepsOf(*t.amount, scale, param+"."+t.name, asset)
		if err != nil {
			return a, err
		}
		a.Amount = &n
	}
	if given != 1 {
		return a, refuse(CodeInvalid, param, "%s needs one of below, above, below_percent and above_percent", param)
	}
	return a, nil
}

// cut is the balance at which the alert goes on or off: below it is one, from it on the other.
func (a *Alert) cut(w *Wallet) int64 {
	at := int64(0)
	if a.Amount != nil {
		at = *a.Amount
	} else {
		at = percentOf(w.FullAmount, *a.Percent)
	}
	if a.Direction == "above" {
		at, _ = add(at, 1) // on from the step above it
	}
	return at
}

func (a *Alert) on(w *Wallet) bool {
	return (w.Available() < a.cut(w)) == (a.Direction == "below")
}

// depletedBelow is the balance below which a wallet has nothing to spend, its overdraft included.
func (w *Wallet) depletedBelow() int64 { return 1 - w.OverdraftLimit }

// quiet finds the wallet's alert state, and the range around its balance in which it stays.
func (w *Wallet) quiet(alerts []Alert) (state string, from, below *int64) {
	worst, available := 0, w.Available()
	bound := func(cut int64) {
		if cut <= available && (from == nil || cut > *from) {
			from = &cut
		}
		if cut > available && (below == nil || cut < *below) {
			below = &cut
		}
	}
	for i := range alerts {
		bound(alerts[i].cut(w))
		if alerts[i].on(w) {
			worst = max(worst, slices.Index(alertStates, alerts[i].Level))
		}
	}
	bound(w.depletedBelow())
	if available < w.depletedBelow() {
		worst = len(alertStates) - 1
	}
	return alertStates[worst], from, below
}

// loud reports whether the balance has left the range in which no alert begins or ends.
func (w *Wallet) loud(available int64) bool {
	return w.QuietFrom != nil && available < *w.QuietFrom || w.QuietBelow != nil && available >= *w.QuietBelow
}

// alert tells of the alerts that a locked wallet's balance has put on.
func (t *tx) alert(w *Wallet) error {
	if !w.loud(w.Available()) {
		return nil
	}
	return t.watch(w, true)
}

// watch looks at all alerts of a locked wallet anew, after its balance or what they are measured by has changed.
func (t *tx) watch(w *Wallet, tell bool) error {
	alerts, err := t.alerts(w)
	if err != nil {
		return err
	}
	var fired []Alert
	for i := range alerts {
		a := &alerts[i]
		on := a.on(w)
		if on == a.Active {
			continue
		}
		a.Active = on
		if err := t.exec(`update wallet_alerts set active = $4 where bucket = $1 and wallet_id = $2 and place = $3`, w.Bucket, w.ID, i, on); err != nil {
			return err
		}
		if on {
			fired = append(fired, *a)
		}
	}
	before := w.AlertState
	w.AlertState, w.QuietFrom, w.QuietBelow = w.quiet(alerts)
	if tell {
		for _, a := range fired {
			t.emit(EventBalanceAlert, w, &AlertFired{*w, a})
		}
		if w.AlertState == "depleted" && before != w.AlertState {
			t.emit(EventDepleted, w, w)
		}
	}
	return t.exec(`update wallets set alert_state = $3, quiet_from = $4, quiet_below = $5, version = version + 1 where bucket = $1 and id = $2`,
		w.Bucket, w.ID, w.AlertState, w.QuietFrom, w.QuietBelow)
}

func (t *tx) alerts(w *Wallet) (alerts []Alert, err error) {
	err = t.SelectContext(t.ctx, &alerts, alertsSQL, w.Bucket, w.ID)
	return alerts, err
}

// AlertsOf answers a wallet's alerts, in the order in which they were given.
func (l *Ledger) AlertsOf(ctx context.Context, w *Wallet) (alerts []Alert, err error) {
	err = l.db.SelectContext(ctx, &alerts, alertsSQL, w.Bucket, w.ID)
	return alerts, err
}

const alertsSQL = `select level, direction, amount, percent, active from wallet_alerts where bucket = $1 and wallet_id = $2 order by place`

// setAlerts replaces a locked wallet's alerts. One that is on from the start is not told: nothing has happened.
func (t *tx) setAlerts(w *Wallet, alerts []Alert) error {
	if err := t.exec(`delete from wallet_alerts where bucket = $1 and wallet_id = $2`, w.Bucket, w.ID); err != nil {
		return err
	}
	for i, a := range alerts {
		if err := t.exec(`insert into wallet_alerts (bucket, wallet_id, place, level, direction, amount, percent) values ($1, $2, $3, $4, $5, $6, $7)`,
			w.Bucket, w.ID, i, a.Level, a.Direction, a.Amount, a.Percent); err != nil {
			return err
		}
	}
	return t.watch(w, false)
}
