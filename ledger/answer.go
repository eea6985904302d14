package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"sync"
)

// Once is the promise of an idempotency key: the same request under it has its effect at most once.
// The zero value promises nothing.
type Once struct {
	Bucket  int16
	Key     string
	Request int64 // Fingerprint of the request
}

// Fingerprint condenses what a request asks for, so that the same key with another request is noticed.
// It is never zero.
func Fingerprint(parts ...string) int64 {
	h := sha256.New()
	var size [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(size[:], uint64(len(p)))
		h.Write(size[:])
		h.Write([]byte(p))
	}
	n := int64(binary.BigEndian.Uint64(h.Sum(nil)))
	if n == 0 {
		n = 1
	}
	return n
}

// Answer is what a call under a key was answered, or, with Body empty, what it made before it could answer.
type Answer struct {
	RefersTo string `db:"refers_to"`
	Status   int    `db:"status"`
	Body     string `db:"body"`
	Request  int64  `db:"request"`
}

func keyReused() error {
	return refuse(CodeKeyReused, "idempotency_key", "this idempotency key was used with another request; nothing was done. Send the first request again, or take a new key")
}

// claim takes the key for what this transaction makes. replayed says that the same request has had its effect
// before, and made is what it made; another request under the key is refused.
func (t *tx) claim(once Once, makes string) (made string, replayed bool, err error) {
	if once.Key == "" {
		return makes, false, nil
	}
	var spent int64
	found, err := t.get(&spent, `select request from entries where bucket = $1 and key = $2`, once.Bucket, once.Key)
	if err != nil {
		return "", false, err
	}
	if found {
		return "", false, keyReused() // a debit took it
	}
	res, err := t.ExecContext(t.ctx, `insert into answers (bucket, key, request, refers_to, created_at) values ($1, $2, $3, $4, $5)
		on conflict do nothing`, once.Bucket, once.Key, once.Request, makes, t.now)
	if err != nil {
		return "", false, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 1 {
		return makes, false, err
	}
	var first Answer
	if _, err := t.get(&first, `select request, refers_to from answers where bucket = $1 and key = $2`, once.Bucket, once.Key); err != nil {
		return "", false, err
	}
	if first.Request != once.Request {
		return "", false, keyReused()
	}
	return first.RefersTo, true, nil
}

// FindAnswer looks for what was answered under a key. Another request under it is refused.
func (l *Ledger) FindAnswer(ctx context.Context, once Once) (a Answer, found bool, err error) {
	if once.Key == "" {
		return Answer{}, false, nil
	}
	found, err = l.getRow(ctx, &a, `select refers_to, coalesce(status, 0) as status, coalesce(body, '') as body, request
		from answers where bucket = $1 and key = $2`, once.Bucket, once.Key)
	if err != nil || !found {
		return Answer{}, false, err
	}
	if a.Request != once.Request {
		return Answer{}, false, keyReused()
	}
	return a, true, nil
}

// KeepAnswer keeps the answer of a call under its key and says what is kept: the first that came, so that
// every sender of one key gets the same bytes. first says that it is this one. The answer must not be sent
// before.
func (l *Ledger) KeepAnswer(ctx context.Context, once Once, status int, body string) (kept Answer, first bool, err error) {
	if once.Key == "" {
		return Answer{Status: status, Body: body}, true, nil
	}
	first, err = l.getRow(ctx, &kept, `
		insert into answers (bucket, key, request, status, body, created_at) values ($1, $2, $3, $4, $5, $6)
		on conflict (bucket, key) do update set status = excluded.status, body = excluded.body
			where answers.body is null and answers.request = excluded.request
		returning refers_to, status, body, request`, once.Bucket, once.Key, once.Request, status, body, l.Now())
	if err != nil || first {
		return kept, first, err
	}
	kept, _, err = l.FindAnswer(ctx, once)
	return kept, false, err
}

// BucketOfKey is the bucket for the answer of a call that is about no customer.
func BucketOfKey(key string) int16 { return bucketOf(key) }

// recentKeys remembers which request used a key lately, in this process. A key is unique in its customer's
// bucket by the database; this also notices one that comes again for another customer or another call,
// which no index over one bucket can see, while the process remembers it.
type recentKeys struct {
	mu       sync.Mutex
	now, old map[string]int64
}

// recentLimit bounds each of the two generations.
const recentLimit = 50_000

// request is the request that used key lately.
func (r *recentKeys) request(key string) (request int64, seen bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if request, seen = r.now[key]; !seen {
		request, seen = r.old[key]
	}
	return request, seen
}

// used remembers that keys were used.
func (r *recentKeys) used(once ...Once) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range once {
		if o.Key == "" {
			continue
		}
		if r.now == nil || len(r.now) >= recentLimit {
			r.old, r.now = r.now, make(map[string]int64)
		}
		r.now[o.Key] = o.Request
	}
}

// CheckKey refuses a key that this process knows to belong to another request.
func (l *Ledger) CheckKey(once Once) error {
	if once.Key == "" {
		return nil
	}
	if request, seen := l.recent.request(once.Key); seen && request != once.Request {
		return keyReused()
	}
	return nil
}

// KeyUsed remembers a key whose call had its effect.
func (l *Ledger) KeyUsed(once Once) { l.recent.used(once) }

// booked remembers the keys of the debits that were booked. What was refused has not used its key.
func (r *recentKeys) booked(calls []*debitCall) {
	once := make([]Once, 0, len(calls))
	for _, c := range calls {
		if c.result.Err == nil {
			once = append(once, c.in.Once)
		}
	}
	r.used(once...)
}

// ReleaseKey lets go of a key whose call came to nothing after all.
func (l *Ledger) ReleaseKey(ctx context.Context, once Once) error {
	if once.Key == "" {
		return nil
	}
	_, err := l.db.ExecContext(ctx, `delete from answers where bucket = $1 and key = $2 and body is null`, once.Bucket, once.Key)
	return err
}
