package main

import "testing"

func TestSmoke(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.peer()
	wal, stripe := w.customer("acme", "10", "pm_card_visa")
	t.Log(wal, stripe, w.available("acme"))
	w.inStep("acme")
	t.Log(p.rule(wal, map[string]any{"threshold": "5", "amount": "20"}))
	t.Log(p.call("POST", "/v1/usage", map[string]any{"customer": "acme", "amount": "6"}))
	w.eventually("refill", func() bool { return w.available("acme") == "24" })
	w.inStep("acme")
}
