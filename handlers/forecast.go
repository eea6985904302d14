package handlers

import (
	"net/http"

	"lockstep/ledger"
)

type burnJSON struct {
	Window      string  `json:"window"`
	From        string  `json:"from"`
	Used        string  `json:"used"`
	PerHour     string  `json:"per_hour"`
	EmptyAt     *string `json:"empty_at"`
	MinutesLeft *int64  `json:"minutes_left"`
}

type expiryJSON struct {
	At     string `json:"at"`
	Amount string `json:"amount"`
	Grant  string `json:"grant"`
}

func (s *Server) getForecast(c *call) error {
	f, err := s.Ledger.Forecast(c.ctx(), c.r.PathValue("id"))
	if err != nil {
		return err
	}
	scale := f.Wallet.Scale
	burn := make([]burnJSON, len(f.Burn))
	for i, b := range f.Burn {
		burn[i] = burnJSON{b.Window, stamp(b.From), ledger.FormatSteps(b.Used, scale), b.PerHour, optionalStamp(b.EmptyAt), b.MinutesLeft}
	}
	var next *expiryJSON
	if e := f.NextExpiry; e != nil {
		next = &expiryJSON{stamp(e.At), ledger.FormatSteps(e.Amount, scale), e.Grant}
	}
	return c.reply(http.StatusOK, struct {
		Object     string      `json:"object"`
		Wallet     string      `json:"wallet"`
		Asset      string      `json:"asset"`
		At         string      `json:"at"`
		Available  string      `json:"available"`
		Burn       []burnJSON  `json:"burn"`
		NextExpiry *expiryJSON `json:"next_expiry"`
	}{"forecast", f.Wallet.ID, f.Wallet.Asset, stamp(f.At), ledger.FormatSteps(f.Wallet.Available(), scale), burn, next})
}
