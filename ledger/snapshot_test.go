package ledger

import "testing"

// However many entries there are, the parts are all of the buckets, each once.
func TestParts(t *testing.T) {
	for rows, want := range map[float64]int{-1: 1, 0: 1, 1e6: 1, 4e6: 3, 9e6: 5, 50e6: 26, 1e9: 64, 1e15: 64} {
		parts, next := partsOf(rows), int16(0)
		if len(parts) != want {
			t.Errorf("%g entries in %d parts, want %d", rows, len(parts), want)
		}
		for _, p := range parts {
			if p.from != next || p.to < p.from {
				t.Errorf("%g entries: a part from %d to %d after %d", rows, p.from, p.to, next)
			}
			next = p.to + 1
		}
		if next != Buckets {
			t.Errorf("%g entries: the last part ends before %d", rows, next)
		}
	}
}
