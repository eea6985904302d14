package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"lockstep/ledger"
	"lockstep/stripeutil"
	"lockstep/stripeutil/stripesim"
)

// The mix is debits on customers as an app has them: with purchased credit, which Stripe shows as their balance, and a
// rule that charges a saved card. While it runs, the gateway takes payments, is told of them by webhooks, and keeps each
// balance in Stripe up to date.

// mixCustomers is how many customers the mix has at most: each is made by calls to the gateway and to Stripe.
const mixCustomers = 400

// What the rules of the mix say, in usd. A top-up pays for 500 debits, so one debit in 500 crosses a threshold, and what
// is left below it pays for as many debits as no top-up's time can see.
const (
	mixThreshold = 5
	mixTopup     = "0.5"
	mixDebits    = 500 // that a top-up pays for
)

// benchMix are the customers of the mix.
type benchMix struct {
	ledger *ledger.Ledger
	sim    *stripesim.Sim
	refs   []ledger.Ref
}

// mixBooks is what the mix did beside debits.
type mixBooks struct {
	Customers int `json:"customers"`
	Topups    int `json:"topups"`
	Flushes   int `json:"flushes"` // balance transactions that the mirror made
	Behind    int `json:"behind"`  // customers whose balance in Stripe is not what the ledger says
}

// makeMix makes customers over the API, as an app would, with a card that Stripe has saved.
func makeMix(ctx context.Context, bed *benchBed, n int) (*benchMix, error) {
	client, err := stripeutil.New(stripeutil.Config{SecretKey: benchStripeKey, APIBase: bed.stripeURL, RequestsPerSecond: 1e6})
	if err != nil {
		return nil, err
	}
	mix := &benchMix{ledger: bed.ledger, sim: bed.sim, refs: make([]ledger.Ref, n)}
	caller := demoCaller{base: "http://" + bed.gateway.addr, key: bed.apiKey}
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				err := mix.customer(ctx, caller, client, i)
				if err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return nil, fmt.Errorf("customers of the mix: %w", *err)
	}
	_, err = mix.inStep(ctx)
	return mix, err
}

// customer makes one customer. What each has above its threshold differs, so that not all cross it at once.
func (m *benchMix) customer(ctx context.Context, caller demoCaller, client *stripeutil.Client, i int) error {
	id := string(appendBenchCustomer(nil, benchMixed+i))
	var made struct {
		StripeCustomer string `json:"stripe_customer"`
		Wallets        []struct {
			ID string `json:"id"`
		} `json:"wallets"`
	}
	if err := caller.call(ctx, "POST", "/v1/customers", id+"-customer", map[string]any{"id": id}, &made); err != nil {
		return err
	}
	if len(made.Wallets) != 1 {
		return fmt.Errorf("customer %s has %d wallets", id, len(made.Wallets))
	}
	card, err := client.AttachPaymentMethod(ctx, "pm_card_visa", made.StripeCustomer, id+"-attach")
	if err != nil {
		return err
	}
	if _, err := client.SetDefaultPaymentMethod(ctx, made.StripeCustomer, card, id+"-default"); err != nil {
		return err
	}
	if err := caller.call(ctx, "POST", "/v1/grants", id+"-grant", map[string]any{"customer": id, "amount": fmt.Sprintf("%d.%03d", mixThreshold, i%mixDebits),
		"kind": "purchased", "covers": "all", "reason": "bench"}, nil); err != nil {
		return err
	}
	if err := caller.call(ctx, "PUT", "/v1/wallets/"+made.Wallets[0].ID+"/auto_topup", "", map[string]any{"enabled": true,
		"threshold": fmt.Sprint(mixThreshold), "amount": mixTopup}, nil); err != nil {
		return err
	}
	m.refs[i], err = m.ledger.Resolve(ctx, id)
	return err
}

// mixPatience bounds how long the mirror may take to catch up after the load.
const mixPatience = time.Minute

// inStep waits until no top-up is in flight and Stripe shows of every customer what it should, and answers how long that
// took. It leaves the machine to what is measured next.
func (m *benchMix) inStep(ctx context.Context) (took time.Duration, err error) {
	for begun := time.Now(); ; {
		behind, err := m.ledger.OutOfStep(ctx, m.refs, false)
		if err != nil {
			return 0, err
		}
		var inFlight int
		if err := m.ledger.DB().GetContext(ctx, &inFlight, `select count(*) from topups where status in ('pending', 'processing', 'action_required')`); err != nil {
			return 0, err
		}
		took = time.Since(begun)
		if len(behind) == 0 && inFlight == 0 {
			return took, nil
		}
		if took > mixPatience {
			return took, fmt.Errorf("%v after the load %d customers are not in step with Stripe, %s for one, and %d top-ups are in flight",
				mixPatience, len(behind), firstRef(behind), inFlight)
		}
		select {
		case <-ctx.Done():
			return took, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func firstRef(refs []ledger.Ref) string {
	if len(refs) == 0 {
		return "none"
	}
	return refs[0].ID
}

// verify compares what the simulated Stripe shows with what the ledger wants it to show, and has Stripe's own books
// checked.
func (m *benchMix) verify(ctx context.Context) (*mixBooks, error) {
	b := &mixBooks{Customers: len(m.refs)}
	var wrong []error
	for _, ref := range m.refs {
		v, found, err := m.ledger.MirrorOf(ctx, ref)
		if err != nil {
			return b, err
		}
		shown, known := m.sim.Customer(v.StripeCustomer)
		if !found || !known || v.Open || v.Want != v.Credit || shown.Balance != -v.Want {
			b.Behind++
			if len(wrong) == 0 {
				wrong = append(wrong, fmt.Errorf("customer %s has a balance of %d in Stripe, and the ledger wants %d", ref.ID, shown.Balance, -v.Want))
			}
		}
	}
	if err := m.ledger.DB().GetContext(ctx, &b.Topups, `select count(*) from topups where status = 'succeeded'`); err != nil {
		return b, err
	}
	if err := m.ledger.DB().GetContext(ctx, &b.Flushes, `select count(*) from flushes where status <> 'pending'`); err != nil {
		return b, err
	}
	return b, errors.Join(append(wrong, m.sim.Check())...)
}
