package ledger

import (
	"crypto/rand"
	"encoding/binary"
	"hash/fnv"
	"strings"
	"sync"
	"time"
)

// Buckets is how many parts customers are spread over. It is part of the schema: a customer's bucket is
// fixed when the customer is made.
const Buckets = 64

// bucketOf is the bucket of a customer id (or, for calls about no customer, of an idempotency key).
func bucketOf(id string) int16 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // never fails
	return int16(h.Sum32() % Buckets)
}

// idAlphabet is Crockford's base 32: in ASCII order, so that ids sort as the numbers in them do.
const idAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"

// idLength is the length of an id after its prefix: 48 bits of milliseconds, 46 bits that make it unique,
// 6 bits of bucket; five bits a character.
const idLength = 20

// idSource makes ids that sort by creation within a process and are unique beyond it.
type idSource struct {
	mu   sync.Mutex
	ms   uint64
	tail uint64 // of 46 bits
}

const tailBits = 46

// newID makes an id such as wal_06f3… whose last six bits are the bucket.
func (s *idSource) newID(prefix string, bucket int16, now time.Time) string {
	s.mu.Lock()
	ms := uint64(now.UnixMilli()) & (1<<48 - 1)
	if ms > s.ms {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails since Go 1.24
		s.ms, s.tail = ms, binary.BigEndian.Uint64(b[:])&(1<<(tailBits-1)-1)
	} else {
		// Within one millisecond, or when the clock stepped back: count on, so that order is kept.
		s.tail++
		if s.tail == 1<<tailBits {
			s.ms, s.tail = s.ms+1, 0
		}
	}
	ms, tail := s.ms, s.tail
	s.mu.Unlock()

	// 100 bits: 48 + 46 + 6.
	hi := ms<<2 | tail>>44                      // the upper 50 bits
	lo := tail&(1<<44-1)<<6 | uint64(bucket)&63 // the lower 50 bits
	var out [idLength]byte
	for i := 9; i >= 0; i-- {
		out[i], hi = idAlphabet[hi&31], hi>>5
		out[i+10], lo = idAlphabet[lo&31], lo>>5
	}
	return prefix + string(out[:])
}

// bucketOfID reads the bucket back out of an id, and says whether it is one with that prefix.
func bucketOfID(prefix, id string) (int16, bool) {
	tail, ok := strings.CutPrefix(id, prefix)
	if !ok || len(tail) != idLength {
		return 0, false
	}
	var last int
	for i := range tail {
		n := strings.IndexByte(idAlphabet, tail[i])
		if n < 0 {
			return 0, false
		}
		last = last<<5 | n
		last &= 63
	}
	return int16(last), true
}
