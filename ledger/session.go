package ledger

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"time"
)

// How long a person stays signed in at the console: at most SessionLife, and IdleLife after the last page they asked for.
const (
	SessionLife = 12 * time.Hour
	IdleLife    = time.Hour
	seenEvery   = time.Minute // how exact the last page's time is: a page is no write
)

// Operator is a person who is signed in at the console.
type Operator struct {
	Name     string    `db:"operator"`
	KeyID    string    `db:"key_id"`
	KeyName  string    `db:"key_name"`
	Scopes   string    `db:"scopes"`
	SeenAt   time.Time `db:"seen_at"`
	ExpireAt time.Time `db:"expires_at"`
}

// SignIn begins a session of a person with a key and answers its secret. found is false where no key that is in force has
// that secret, and where it may not administer: nobody is told which.
func (l *Ledger) SignIn(ctx context.Context, key, name string) (secret string, found bool, err error) {
	hash := HashKey(key)
	k, found, err := l.FindKey(ctx, hash)
	if err != nil || !found || !k.Can("admin") {
		return "", false, err
	}
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails since Go 1.24
	secret = base64.RawURLEncoding.EncodeToString(random[:])
	own, now := HashKey(secret), l.Now()
	if _, err := l.db.ExecContext(ctx, `delete from console_sessions where expires_at <= $1`, now); err != nil {
		return "", false, err
	}
	_, err = l.db.ExecContext(ctx, `insert into console_sessions (hash, key_id, key_hash, operator, created_at, seen_at, expires_at)
		values ($1, $2, $3, $4, $5, $5, $6)`, own[:], k.ID, hash[:], name, now, now.Add(SessionLife))
	return secret, err == nil, err
}

// OperatorOf finds who a session's secret belongs to. A session has ended when its time is over, when its person was idle
// for too long, and when its key was revoked or replaced. here says that the person asked for this page: what a page
// fetches by itself keeps nobody signed in.
func (l *Ledger) OperatorOf(ctx context.Context, secret string, here bool) (o Operator, found bool, err error) {
	hash, now := HashKey(secret), l.Now()
	found, err = l.getRow(ctx, &o, `select s.operator, s.key_id, k.name as key_name, k.scopes, s.seen_at, s.expires_at from console_sessions s
		join api_keys k on k.id = s.key_id and k.hash = s.key_hash and k.revoked_at is null
		where s.hash = $1 and s.expires_at > $2 and s.seen_at > $3`, hash[:], now, now.Add(-IdleLife))
	if err != nil || !found {
		return Operator{}, false, err
	}
	if k := (APIKey{ScopeList: o.Scopes}); !k.Can("admin") {
		return Operator{}, false, nil
	}
	if here && now.Sub(o.SeenAt) >= seenEvery {
		_, err = l.db.ExecContext(ctx, `update console_sessions set seen_at = $2 where hash = $1 and seen_at < $2`, hash[:], now)
	}
	return o, err == nil, err
}

// SignOut ends a session.
func (l *Ledger) SignOut(ctx context.Context, secret string) error {
	hash := HashKey(secret)
	_, err := l.db.ExecContext(ctx, `delete from console_sessions where hash = $1`, hash[:])
	return err
}
