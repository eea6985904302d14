package ledger_test

import (
	"fmt"
	"sync"
	"testing"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// BenchmarkDebits books debits from 256 callers at once; `lockstep bench` measures the whole service.
func BenchmarkDebits(b *testing.B) {
	for _, wallets := range []int{1, 2000} {
		b.Run(fmt.Sprintf("wallets=%d", wallets), func(b *testing.B) {
			l := ledgertest.New(b, ledger.Options{})
			var wg sync.WaitGroup
			for i := range 16 {
				wg.Go(func() {
					for n := i; n < wallets; n += 16 {
						id := fmt.Sprint("c", n)
						if _, _, err := l.CreateCustomer(ctx, ledger.CustomerInput{ID: id}, ledger.Once{}); err != nil {
							b.Error(err)
						}
						grant(b, l, ledger.GrantInput{Customer: id, Amount: dec(b, "1000000")})
					}
				})
			}
			wg.Wait()
			next := make(chan int, 1024)
			b.ResetTimer()
			for range 256 {
				wg.Go(func() {
					for n := range next {
						if _, _, err := debit(b, l, fmt.Sprint("c", n%wallets), "0.25", fmt.Sprint("key-", n)); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for n := range b.N {
				next <- n
			}
			close(next)
			wg.Wait()
		})
	}
}
