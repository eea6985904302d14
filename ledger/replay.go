package ledger

import (
	"context"
	"time"
)

// SimulationInput asks what a rule would have done.
type SimulationInput struct {
	Days int
	Rule *RuleInput // nil: the wallet's own, as if it were enabled and not paused
}

// Bounds of what is replayed, and how much of it is read at once.
const (
	maxSimulatedDays    = 400
	maxSimulatedEntries = 2_000_000
	replayPage          = 5000
)

// Simulate replays a wallet's last days through a rule. It books nothing, and holds a page of entries at a time.
func (l *Ledger) Simulate(ctx context.Context, walletID string, in SimulationInput) (*Simulation, error) {
	if in.Days < 1 || in.Days > maxSimulatedDays {
		return nil, refuse(CodeInvalid, "days", "days is 1 to %d", maxSimulatedDays)
	}
	w, err := l.Wallet(ctx, walletID)
	if err != nil {
		return nil, err
	}
	_, asset, err := l.assetFor(ctx, w.Customer, w.Asset)
	if err != nil {
		return nil, err
	}
	rule, err := l.ruleToSimulate(ctx, &w, asset, in.Rule)
	if err != nil {
		return nil, err
	}
	p, _ := asset.price()
	to := l.Now()
	from := to.AddDate(0, 0, -in.Days)
	if from.Before(w.CreatedAt) {
		from = w.CreatedAt.UTC()
	}
	before, err := entryAt(l.getter(ctx), w.Bucket, w.ID, from.Add(-time.Microsecond))
	if err != nil {
		return nil, err
	}
	if n := w.Seq - before.Seq; n > maxSimulatedEntries {
		return nil, refuse(CodeInvalid, "days", "wallet %s has %d entries in these days, and a simulation replays at most %d: take fewer days", w.ID, n, maxSimulatedEntries)
	}
	s := newSimulation(rule, w.Scale, p, w.OverdraftLimit, before.BalanceAfter, from)
	if before.Seq > 0 {
		if err := s.begin(); err != nil {
			return nil, err
		}
	}
	if err := l.slowly(ctx, func() error { return l.replay(ctx, &w, before.Seq, s.move) }); err != nil {
		return nil, err
	}
	return s, s.end(to)
}

func (l *Ledger) ruleToSimulate(ctx context.Context, w *Wallet, asset Asset, in *RuleInput) (Rule, error) {
	if in != nil {
		return in.rule(w, asset)
	}
	own, found, err := l.RuleOf(ctx, w)
	if err != nil {
		return Rule{}, err
	}
	if _, priced := asset.price(); !found || !priced {
		return Rule{}, refuse(CodeMissing, "threshold", "wallet %s has no auto top-up rule that could act: say which to simulate, as in PUT /v1/wallets/%s/auto_topup", w.ID, w.ID)
	}
	own.Enabled = true
	return own.Rule, nil
}

// replaySQL reads entries by their seqs. bought says that one is credit which auto top-up bought, or the end of such
// credit by anything but usage.
const replaySQL = `
select e.seq, e.id, e.type, e.amount, e.created_at, coalesce(e.refers_to, '') as refers_to, case
		when e.type = 'grant' then exists (select from topups t where t.bucket = e.bucket and t.id = e.refers_to and t.trigger = 'auto')
		when e.type in ('expire', 'void', 'refund', 'dispute') then exists (select from grants g
			join topups t on t.bucket = g.bucket and t.id = g.source_id and t.trigger = 'auto'
			where g.bucket = e.bucket and g.id = split_part(e.parts, ':', 1))
		when e.type = 'adjustment' then e.refers_to like 'top\_%'
		else false end as bought
from all_entries e where e.bucket = $1 and e.wallet_id = $2 and e.seq > $3 and e.seq <= $4 order by e.seq`

// replay hands on what moved a wallet after one seq up to the one that was read with it.
func (l *Ledger) replay(ctx context.Context, w *Wallet, after int64, move func(movement) error) error {
	for ; after < w.Seq; after += replayPage {
		var page []struct {
			Seq      int64     `db:"seq"`
			ID       string    `db:"id"`
			Type     string    `db:"type"`
			Amount   int64     `db:"amount"`
			At       time.Time `db:"created_at"`
			RefersTo string    `db:"refers_to"`
			Bought   bool      `db:"bought"`
		}
		last := min(after+replayPage, w.Seq)
		if err := l.db.SelectContext(ctx, &page, replaySQL, w.Bucket, w.ID, after, last); err != nil {
			return err
		}
		if int64(len(page)) < last-after {
			return detached(w.ID, after+1, last)
		}
		for _, e := range page {
			m := movement{at: e.At.UTC(), amount: max(e.Amount, -e.Amount)}
			switch {
			case e.Amount == 0 || e.Bought: // a hold, a release, and what the rule would have bought itself
				continue
			case e.Type == "debit":
				m.kind, m.debit = movedUsage, "deb_"+e.ID[len("ent_"):]
			case e.Type == "capture":
				m.kind = movedUsage
			case e.Type == "reversal":
				m.kind, m.debit = movedBack, e.RefersTo
			case e.Amount > 0:
				m.kind = movedCredit
			default:
				m.kind = movedLoss
			}
			if err := move(m); err != nil {
				return err
			}
		}
	}
	return nil
}
