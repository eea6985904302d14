package handlers

import (
	"net/http"

	"lockstep/ledger"
)

// simulateRequest asks for a simulation, of a rule of its own where any of a rule's fields is sent.
type simulateRequest struct {
	Days           *int    `json:"days"`
	IdempotencyKey *string `json:"idempotency_key"`
	ruleRequest
}

type simulatedChargeJSON struct {
	At     string       `json:"at"`
	Amount string       `json:"amount"`
	Charge ledger.Money `json:"charge"`
}

type simulationJSON struct {
	Object string `json:"object"`
	Wallet string `json:"wallet"`
	From   string `json:"from"`
	To     string `json:"to"`
	Events int    `json:"events"`
	Topups struct {
		Count   int          `json:"count"`
		Amount  string       `json:"amount"`
		Charged ledger.Money `json:"charged"`
	} `json:"topups"`
	Cap struct {
		Refused int     `json:"refused"`
		FirstAt *string `json:"first_at"`
	} `json:"cap"`
	Depleted struct {
		At            *string `json:"at"`
		DebitsRefused int     `json:"debits_refused"`
		Short         string  `json:"short"`
	} `json:"depleted"`
	Lowest  string                `json:"lowest"`
	Highest string                `json:"highest"`
	Ending  string                `json:"ending"`
	Charges []simulatedChargeJSON `json:"charges"`
}

func newSimulation(wallet string, r *ledger.Simulation) simulationJSON {
	v := simulationJSON{Object: "simulation", Wallet: wallet, From: stamp(r.From), To: stamp(r.To), Events: r.Events,
		Lowest: ledger.FormatSteps(r.Lowest, r.Scale), Highest: ledger.FormatSteps(r.Highest, r.Scale), Ending: ledger.FormatSteps(r.Ending, r.Scale),
		Charges: make([]simulatedChargeJSON, len(r.Charges))}
	v.Topups.Count, v.Topups.Amount, v.Topups.Charged = r.Topups, ledger.FormatSteps(r.Bought, r.Scale), ledger.Money{Amount: r.Charged, Currency: r.Currency}
	v.Cap.Refused, v.Cap.FirstAt = r.CapRefused, optionalStamp(r.CapRefusedAt)
	v.Depleted.At, v.Depleted.DebitsRefused, v.Depleted.Short = optionalStamp(r.DepletedAt), r.DebitsRefused, ledger.FormatSteps(r.Short, r.Scale)
	for i, c := range r.Charges {
		v.Charges[i] = simulatedChargeJSON{stamp(c.At), ledger.FormatSteps(c.Amount, r.Scale), ledger.Money{Amount: c.Charge, Currency: r.Currency}}
	}
	return v
}

func (s *Server) simulateRule(c *call) error {
	var q simulateRequest
	if err := c.decodeOptional(&q); err != nil {
		return err
	}
	in := ledger.SimulationInput{Days: 30}
	if q.Days != nil {
		in.Days = *q.Days
	}
	if q.ruleRequest != (ruleRequest{}) {
		rule, err := q.rule()
		if err != nil {
			return err
		}
		in.Rule = &rule
	}
	key, err := c.key(q.IdempotencyKey)
	if err != nil {
		return err
	}
	w, err := s.wallet(c)
	if err != nil {
		return err
	}
	q.IdempotencyKey = nil // it may stand in the header as well
	asked, err := encode(q)
	if err != nil {
		return err
	}
	return s.once(c, key, w.Bucket, []string{string(asked)}, func(ledger.Once) (int, any, error) {
		c.takeTime()
		r, err := s.Ledger.Simulate(c.ctx(), w.ID, in)
		if err != nil {
			return 0, nil, err
		}
		return http.StatusOK, newSimulation(w.ID, r), nil
	})
}
