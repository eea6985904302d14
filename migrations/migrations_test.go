package migrations_test

import (
	"context"
	"sync"
	"testing"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
	"lockstep/migrations"
)

func TestMain(m *testing.M) { ledgertest.Main(m) }

// Processes that start together on an empty database migrate it once, and all find it ready.
func TestConcurrentStart(t *testing.T) {
	t.Parallel()
	ctx, url := context.Background(), ledgertest.Empty(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	applied := 0
	for range 5 {
		wg.Go(func() {
			db, err := ledger.Connect(ctx, url)
			if err != nil {
				t.Error(err)
				return
			}
			defer db.Close()
			n, err := migrations.Up(ctx, db.DB)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			applied += n
			mu.Unlock()
		})
	}
	wg.Wait()
	if applied != 20 {
		t.Errorf("%d migrations applied, there are 20", applied)
	}
	ledgertest.New(t, ledger.Options{URL: url})
}
