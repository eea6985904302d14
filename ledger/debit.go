package ledger

import (
	"context"
	"sync"
	"time"
)

// DebitInput asks for credit to be spent.
type DebitInput struct {
	Customer string
	Asset    string // "" for the only one there is
	Amount   Decimal
	Reason   string
	Metadata string // JSON object of strings, "" when none was sent
	Rated    *Rated // what Amount was worked out from, nil where the caller said it
	Once     Once   // its Bucket is found here
}

// Debit is credit that was spent. Amounts are steps of the wallet's asset.
type Debit struct {
	ID        string // deb_…
	Customer  string
	Wallet    string
	Scale     int16
	Amount    int64 // above zero
	Parts     Parts // above zero; without a grant: debt
	Balance   Balance
	Reason    string
	Metadata  string
	CreatedAt time.Time

	// Of a debit by the rate card.
	Feature        string
	FeatureVersion int
	Quantity       string
}

// DebitResult is the outcome of one debit of several.
type DebitResult struct {
	Debit    Debit
	Replayed bool  // the key had been used: this is the first answer again
	Err      error // a *Refusal, or a fault after which the same key tells
}

// Debit spends credit, once. When it returns without an error the debit is on disk.
func (l *Ledger) Debit(ctx context.Context, in DebitInput) (Debit, bool, error) {
	r := l.Debits(ctx, []DebitInput{in})[0]
	return r.Debit, r.Replayed, r.Err
}

// Debits spends credit for several requests, each of which stands alone, and returns when the last is done.
// A context that ends does not take back what has been handed to a lane.
func (l *Ledger) Debits(ctx context.Context, ins []DebitInput) []DebitResult {
	calls := make([]*debitCall, len(ins))
	results := make([]DebitResult, len(ins))
	var under sync.WaitGroup
	for i, in := range ins {
		c, err := l.newCall(ctx, in, &under)
		if err == nil {
			under.Add(1)
			if err = l.laneOf(c.ref.Bucket).put(c); err != nil {
				under.Done()
			}
		}
		if err != nil {
			results[i].Err = err
			continue
		}
		calls[i] = c
	}
	under.Wait()
	for i, c := range calls {
		if c != nil {
			results[i] = c.result
		}
	}
	return results
}

// newCall checks what can be checked before the wallet is known.
func (l *Ledger) newCall(ctx context.Context, in DebitInput, done *sync.WaitGroup) (*debitCall, error) {
	if in.Amount.Digits < 0 || in.Amount.Digits == 0 && in.Rated == nil { // a feature may be free
		return nil, refuse(CodeInvalid, "amount", "amount must be above zero")
	}
	if in.Customer == "" {
		return nil, refuse(CodeMissing, "customer", "customer is missing")
	}
	if in.Asset != "" {
		if known, err := l.assetKnown(ctx, in.Asset); err != nil {
			return nil, err
		} else if !known {
			return nil, refuse(CodeAssetUnknown, "asset", "there is no asset %q", in.Asset)
		}
	}
	ref, err := l.Resolve(ctx, in.Customer)
	if err != nil {
		return nil, err
	}
	seen := false
	if in.Once.Key != "" {
		var request int64
		if request, seen = l.recent.request(in.Once.Key); seen && request != in.Once.Request {
			return nil, keyReused()
		}
	}
	return &debitCall{in: in, ref: ref, seen: seen, done: done}, nil
}

// debitOf is the debit that an entry of type debit is.
func debitOf(e *Entry, w *Wallet) Debit {
	parts := make(Parts, len(e.Parts))
	for i, p := range e.Parts {
		parts[i] = Part{Grant: p.Grant, Amount: -p.Amount}
	}
	d := Debit{ID: "deb_" + e.ID[len("ent_"):], Customer: w.Customer, Wallet: w.ID, Scale: w.Scale, Amount: -e.Amount,
		Parts: parts, Balance: e.balance(), Reason: e.Reason, Metadata: e.Metadata, CreatedAt: e.CreatedAt.UTC()}
	if e.Rated != "" {
		d.Feature, d.FeatureVersion, d.Quantity = ratedBy(e.Rated)
	}
	return d
}

// insufficient is the refusal of a debit that the wallet can't pay.
func insufficient(w *Wallet, required int64) error {
	r := refuse(CodeInsufficient, "amount", "customer %s has %s %s available and needs %s", w.Customer,
		FormatSteps(w.Available(), w.Scale), w.Asset, FormatSteps(required, w.Scale))
	r.Available, r.Required, r.Scale, r.Wallet = w.Available(), required, w.Scale, w.ID
	return r
}

// CanSpend asks whether a debit of amount would be booked now, without booking it. It answers what is
// available; the error is the refusal that the debit would get.
func (l *Ledger) CanSpend(ctx context.Context, customer, asset string, amount Decimal) (available int64, scale int16, err error) {
	wallets, err := l.usageWalletsOf(ctx, customer, asset)
	if err != nil {
		return 0, 0, err
	}
	need, err := stepsOf(amount, wallets[0].Scale, "amount", wallets[0].Asset)
	if err != nil {
		return 0, 0, err
	}
	w, err := payer(wallets, need)
	return w.Available(), w.Scale, err
}

// affords refuses an amount that the wallet, its overdraft included, can't pay.
func (w *Wallet) affords(amount int64) error {
	if left, ok := add(w.Available(), -amount); !ok || left < -w.OverdraftLimit {
		return insufficient(w, amount)
	}
	return nil
}

func frozen(w *Wallet) error {
	if w.Barred && w.Status == "active" {
		return refuse(CodeFrozen, "customer", "customer %s is frozen, or was deleted in Stripe: nothing is spent from wallet %s", w.Customer, w.ID)
	}
	return refuse(CodeFrozen, "customer", "wallet %s of customer %s is %s", w.ID, w.Customer, w.Status)
}
