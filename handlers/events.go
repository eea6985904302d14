package handlers

import (
	"bytes"

	"lockstep/ledger"
)

// Render writes what an event is about as the API shows it: the ledger's Options.Render.
func Render(subject any) ([]byte, error) {
	switch v := subject.(type) {
	case *ledger.Grant:
		subject = newGrant(v)
	case *ledger.Topup:
		subject = newTopup(v)
	case *ledger.Wallet:
		subject = newWallet(v)
	case *ledger.Clawback:
		subject = newDispute(v)
	case *ledger.AlertFired:
		subject = newFired(v)
	case *ledger.RuleView:
		subject = newRule(v)
	}
	data, err := encode(subject)
	return bytes.TrimSuffix(data, []byte("\n")), err
}
