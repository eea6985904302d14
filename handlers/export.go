package handlers

import (
	"encoding/hex"
	"strconv"
	"strings"

	"lockstep/ledger"
)

// ExportColumns are those of an exported entry, in order.
var ExportColumns = strings.Fields(`customer wallet asset seq id type amount held balance_after held_after pending_after used_after
	parts reason refers_to key request metadata rated created_at seal stripe_invoice stripe_credit_note`)

// ExportRecord is an exported entry in their order: amounts in the asset's unit.
func ExportRecord(e *ledger.ExportedEntry) []string {
	steps := func(n int64) string { return ledger.FormatSteps(n, e.Scale) }
	parts := make([]string, len(e.Parts))
	for i, p := range e.Parts {
		parts[i] = p.Grant + ":" + steps(p.Amount)
	}
	request := ""
	if e.Request != 0 {
		request = strconv.FormatInt(e.Request, 10)
	}
	var at ledger.AtStripe
	if e.AtStripe != nil {
		at = *e.AtStripe
	}
	return []string{e.Customer, e.Wallet, e.Asset, strconv.FormatInt(e.Seq, 10), e.ID, e.Type, steps(e.Amount), steps(e.Held), steps(e.BalanceAfter),
		steps(e.HeldAfter), steps(e.PendingAfter), steps(e.UsedAfter), strings.Join(parts, ","), e.Reason, e.RefersTo, e.Key, request,
		e.Metadata, e.Rated, e.CreatedAt.UTC().Format("2006-01-02T15:04:05.000000Z"), hex.EncodeToString(e.Seal), at.Invoice, at.CreditNote}
}
