package handlers

import (
	"strconv"

	"lockstep/ledger"
)

// alertIn is a level of a wallet's balance at which somebody is to be told, by one of its four thresholds.
type alertIn struct {
	Level        string  `json:"level"`
	Below        *string `json:"below,omitempty"`
	Above        *string `json:"above,omitempty"`
	BelowPercent *int16  `json:"below_percent,omitempty"`
	AbovePercent *int16  `json:"above_percent,omitempty"`
}

type alertJSON struct {
	alertIn
	Active bool `json:"active"`
}

// alerts reads the alerts of a wallet.
func alerts(in []alertIn) ([]ledger.AlertInput, error) {
	list := make([]ledger.AlertInput, len(in))
	for i, a := range in {
		param := "alerts[" + strconv.Itoa(i) + "]"
		list[i] = ledger.AlertInput{Level: a.Level, BelowPercent: a.BelowPercent, AbovePercent: a.AbovePercent}
		var err error
		if list[i].Below, err = optionalAmount(param+".below", a.Below); err != nil {
			return nil, err
		}
		if list[i].Above, err = optionalAmount(param+".above", a.Above); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// walletBrief is a wallet as an event shows it: what its own row says.
type walletBrief struct {
	Object         string      `json:"object"`
	ID             string      `json:"id"`
	Customer       string      `json:"customer"`
	Asset          string      `json:"asset"`
	Scope          string      `json:"scope"`
	Status         string      `json:"status"`
	Balance        balanceJSON `json:"balance"`
	OverdraftLimit string      `json:"overdraft_limit"`
	AlertState     string      `json:"alert_state"`
}

func newWallet(w *ledger.Wallet) walletBrief {
	v := walletBrief{Object: "wallet", ID: w.ID, Customer: w.Customer, Asset: w.Asset, Scope: w.Scope, Status: w.Status,
		Balance: newBalance(w.Balance(), w.Scale), OverdraftLimit: ledger.FormatSteps(w.OverdraftLimit, w.Scale), AlertState: w.AlertState}
	if w.Barred && w.Status == "active" {
		v.Status = "frozen"
	}
	return v
}

// firedJSON is an alert that went on, with the wallet as it was then.
type firedJSON struct {
	Object string `json:"object"`
	alertJSON
	Wallet walletBrief `json:"wallet"`
}

func newFired(f *ledger.AlertFired) firedJSON {
	return firedJSON{"balance_alert", newAlert(&f.Alert, f.Wallet.Scale), newWallet(&f.Wallet)}
}

func newAlerts(alerts []ledger.Alert, scale int16) []alertJSON {
	list := make([]alertJSON, len(alerts))
	for i := range alerts {
		list[i] = newAlert(&alerts[i], scale)
	}
	return list
}

func newAlert(a *ledger.Alert, scale int16) alertJSON {
	v := alertJSON{alertIn{Level: a.Level}, a.Active}
	var amount *string
	if a.Amount != nil {
		s := ledger.FormatSteps(*a.Amount, scale)
		amount = &s
	}
	if a.Direction == "above" {
		v.Above, v.AbovePercent = amount, a.Percent
	} else {
		v.Below, v.BelowPercent = amount, a.Percent
	}
	return v
}
