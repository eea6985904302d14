package pages

import "strings"

// MenuItem is a page of the console that its menu leads to.
type MenuItem struct {
	Name, Path string
	Here       bool // it is shown now, or one below it is
}

var consoleMenu = []MenuItem{
	{Name: "Overview", Path: "/console"},
	{Name: "Customers", Path: "/console/customers"},
	{Name: "Top-ups", Path: "/console/topups"},
	{Name: "Stripe events", Path: "/console/stripe_events"},
	{Name: "Webhooks", Path: "/console/webhooks"},
	{Name: "Rate card", Path: "/console/rates"},
	{Name: "Assets", Path: "/console/assets"},
	{Name: "Books", Path: "/console/books"},
	{Name: "API keys", Path: "/console/keys"},
	{Name: "Audit trail", Path: "/console/audit"},
}

// beneath says under which page of the menu others lie.
var beneath = map[string]string{"wallets": "customers", "grants": "customers", "debits": "customers", "events": "webhooks"}

// Menu is the console's, with a mark on the page that is shown.
func (f Frame) Menu() []MenuItem {
	room, _, _ := strings.Cut(strings.TrimPrefix(f.Path, "/console/"), "/")
	if above, ok := beneath[room]; ok {
		room = above
	}
	menu := make([]MenuItem, len(consoleMenu))
	for i, m := range consoleMenu {
		m.Here = m.Path == "/console/"+room || f.Path == m.Path
		menu[i] = m
	}
	return menu
}
