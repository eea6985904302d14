package ledger

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
)

// Scopes are what an API key may do: book usage, read, change, and administer.
var Scopes = []string{"usage", "read", "write", "admin"}

// APIKey is a key that may call the API. The key itself is shown once, when it is made.
type APIKey struct {
	ID        string     `db:"id"`
	Name      string     `db:"name"`
	Hint      string     `db:"hint"`
	ScopeList string     `db:"scopes"`
	CreatedAt time.Time  `db:"created_at"`
	RevokedAt *time.Time `db:"revoked_at"`
}

// Can reports whether the key has a scope.
func (k *APIKey) Can(scope string) bool {
	return slices.Contains(strings.Split(k.ScopeList, ","), scope)
}

// HashKey is what is kept of an API key. The key has 256 random bits, so a fast hash gives nothing away.
func HashKey(secret string) [32]byte { return sha256.Sum256([]byte(secret)) }

// CreateKey makes a key with scopes and answers its secret.
func (l *Ledger) CreateKey(ctx context.Context, name string, scopes []string) (k APIKey, secret string, err error) {
	k, secret, _, err = l.MakeKey(ctx, name, scopes, Once{})
	return k, secret, err
}

// MakeKey is CreateKey, once. Of a key that was made before, the secret is gone: only its hash was kept.
func (l *Ledger) MakeKey(ctx context.Context, name string, scopes []string, once Once) (k APIKey, secret string, replayed bool, err error) {
	if len(scopes) == 0 {
		return APIKey{}, "", false, refuse(CodeMissing, "scopes", "a key needs at least one scope of %s", strings.Join(Scopes, ", "))
	}
	for _, s := range scopes {
		if !slices.Contains(Scopes, s) {
			return APIKey{}, "", false, refuse(CodeInvalid, "scopes", "there is no scope %q; there are %s", s, strings.Join(Scopes, ", "))
		}
	}
	var random [32]byte
	_, _ = rand.Read(random[:])
	secret = "lsk_" + base64.RawURLEncoding.EncodeToString(random[:])
	err = l.inTx(ctx, func(t *tx) error {
		k = APIKey{ID: l.ids.newID("key_", 0, t.now), Name: name, Hint: secret[len(secret)-4:], ScopeList: strings.Join(scopes, ","), CreatedAt: t.now}
		made := ""
		if made, replayed, err = t.claim(once, k.ID); err != nil {
			return err
		}
		if replayed {
			secret = ""
			_, err = t.get(&k, `select `+keyColumns+` from api_keys where id = $1`, made)
			return err
		}
		return saveKey(ctx, t, k, secret)
	})
	return k, secret, replayed, err
}

// firstKeyID is the row of the key that the environment gives.
const firstKeyID = "key_environment"

// SetFirstKey makes secret, from the environment, a key with every scope, in place of the one before it.
func (l *Ledger) SetFirstKey(ctx context.Context, secret string) error {
	return saveKey(ctx, l.db, APIKey{ID: firstKeyID, Name: "LOCKSTEP_API_KEY", Hint: secret[max(0, len(secret)-4):],
		ScopeList: strings.Join(Scopes, ","), CreatedAt: l.Now()}, secret)
}

// FromEnvironment reports whether the key is the one that the environment gives, which is made anew at each start.
func (k *APIKey) FromEnvironment() bool { return k.ID == firstKeyID }

const keyColumns = `id, name, hint, scopes, created_at, revoked_at`

func saveKey(ctx context.Context, db sqlx.ExecerContext, k APIKey, secret string) error {
	hash := HashKey(secret)
	_, err := db.ExecContext(ctx, `insert into api_keys (id, name, hash, hint, scopes, created_at) values ($1, $2, $3, $4, $5, $6)
		on conflict (id) do update set hash = excluded.hash, hint = excluded.hint, revoked_at = null`,
		k.ID, k.Name, hash[:], k.Hint, k.ScopeList, k.CreatedAt)
	if violates(err, "api_keys_hash") {
		return refuse(CodeState, "", "that key exists already")
	}
	return err
}

// FindKey finds the key with a hash that is not revoked.
func (l *Ledger) FindKey(ctx context.Context, hash [32]byte) (k APIKey, found bool, err error) {
	found, err = l.getRow(ctx, &k, `select `+keyColumns+` from api_keys where hash = $1 and revoked_at is null`, hash[:])
	return k, found, err
}

// Keys lists all keys, newest first.
func (l *Ledger) Keys(ctx context.Context) ([]APIKey, error) {
	var keys []APIKey
	err := l.db.SelectContext(ctx, &keys, `select `+keyColumns+` from api_keys order by created_at desc, id desc`)
	return keys, err
}

// KeyByID finds a key, revoked or not.
func (l *Ledger) KeyByID(ctx context.Context, id string) (k APIKey, err error) {
	found, err := l.getRow(ctx, &k, `select `+keyColumns+` from api_keys where id = $1`, id)
	if err == nil && !found {
		err = noKey(id)
	}
	return k, err
}

func noKey(id string) error { return refuse(CodeNotFound, "id", "No such API key: '%s'", id) }

// RevokeKey ends a key. Processes that have it in memory notice within seconds.
func (l *Ledger) RevokeKey(ctx context.Context, id string) error {
	res, err := l.db.ExecContext(ctx, `update api_keys set revoked_at = coalesce(revoked_at, $2) where id = $1`, id, l.Now())
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return noKey(id)
	}
	return nil
}
