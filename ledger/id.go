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
	var out [idLength]byte
	base32(out[:10], ms<<2|tail>>44)
	base32(out[10:], tail&(1<<44-1)<<6|uint64(bucket)&63)
	return prefix + string(out[:])
}

// base32 fills out with the lowest bits of n, five a character.
func base32(out []byte, n uint64) {
	for i := len(out) - 1; i >= 0; i-- {
		out[i], n = idAlphabet[n&31], n>>5
	}
}

// A debit's id needs nothing random: it has the milliseconds, as all ids do, then the last seqBits of its entry's seq,
// then the last walletTail characters of its wallet's id, bucket and all. So it is found without an index of its own.
const (
	seqBits       = 20
	walletTail    = 10
	debitIDLength = 10 + seqBits/5 + walletTail
)

// debitEntryID is the id of the entry that a debit becomes on w, whose seq has been moved on to it.
func debitEntryID(w *Wallet, at time.Time) string {
	var out [len("ent_") + debitIDLength]byte
	copy(out[:], "ent_")
	base32(out[4:14], uint64(at.UnixMilli())<<2)
	base32(out[14:18], uint64(w.Seq))
	copy(out[18:], w.ID[len(w.ID)-walletTail:])
	return string(out[:])
}

// debitPlace reads out of the id of a debit's entry where that is; ok is false where it is not such an id.
func debitPlace(entry string) (tail string, seq int64, ok bool) {
	if len(entry) != len("ent_")+debitIDLength {
		return "", 0, false
	}
	for _, c := range entry[14:18] {
		seq = seq<<5 | int64(strings.IndexRune(idAlphabet, c))
	}
	return entry[18:], seq, true
}

// timeOfID reads the time out of an id of four characters of prefix, to the millisecond. Of what is no id it is any.
func timeOfID(id string) time.Time {
	var ms int64
	for _, c := range id[4:14] {
		ms = ms<<5 | int64(strings.IndexRune(idAlphabet, c))
	}
	return time.UnixMilli(ms >> 2).UTC()
}

// bucketOfID reads the bucket back out of an id, and says whether it is one with that prefix.
func bucketOfID(prefix, id string) (int16, bool) {
	tail, ok := strings.CutPrefix(id, prefix)
	if !ok || len(tail) != idLength && len(tail) != debitIDLength {
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
