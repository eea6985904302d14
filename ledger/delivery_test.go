package ledger

import (
	"testing"
	"time"
)

// A delivery is tried eleven times in three days, later where the endpoint asks for it, within bounds.
func TestSchedule(t *testing.T) {
	total := time.Duration(0)
	for tries := 1; tries <= 10; tries++ {
		for range 100 {
			wait, ok := waitAfter(tries, 0)
			if want := schedule[tries-1]; !ok || wait < want*9/10 || wait > want*11/10 {
				t.Fatalf("after %d tries: %v", tries, wait)
			}
		}
		total += schedule[tries-1]
	}
	if total < 3*24*time.Hour || total > 4*24*time.Hour {
		t.Errorf("all in all %v", total)
	}
	if wait, ok := waitAfter(11, time.Hour); ok {
		t.Errorf("after the last try: %v", wait)
	}
	for asked, want := range map[time.Duration][2]time.Duration{
		time.Second: {4500 * time.Millisecond, 5500 * time.Millisecond}, time.Minute: {time.Minute, time.Minute}, 1000 * time.Hour: {24 * time.Hour, 24 * time.Hour},
	} {
		if wait, _ := waitAfter(1, asked); wait < want[0] || wait > want[1] {
			t.Errorf("asked to wait %v: %v", asked, wait)
		}
	}
}
