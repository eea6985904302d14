package main

import (
	"context"
	"errors"
	"net/url"

	"github.com/jmoiron/sqlx"

	"lockstep/handlers"
	"lockstep/ledger"
	"lockstep/migrations"
)

func (e *examination) database(ctx context.Context) {
	const check = "database"
	if e.cfg.DatabaseURL == "" {
		e.found(warning, check, "DATABASE_URL=postgres://… is a server of your own, with backups",
			"DATABASE_URL is empty: the embedded PostgreSQL under DATA_DIR is for trying it out, and is not looked at")
		return
	}
	if u, err := url.Parse(e.cfg.DatabaseURL); err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return // the settings have said so
	}
	e.encryption()
	within, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	db, err := ledger.Connect(within, e.cfg.DatabaseURL)
	if err != nil {
		e.found(problem, check, "look at DATABASE_URL, at the network, and at the server's log", "can't be reached: %v", reason(within, err))
		return
	}
	defer db.Close()
	server, err := ledger.ServerOf(within, db)
	switch {
	case err != nil:
		e.found(problem, check, "look at the server's log", "does not answer: %v", reason(within, err))
		return
	case server.Number < ledger.MinPostgres:
		e.found(problem, check, "move to PostgreSQL 14 or newer", "PostgreSQL %s is too old", server.Version)
		return
	case server.ReadOnly:
		e.found(problem, check, "let DATABASE_URL name the primary", "it only reads: it is a standby, or its transactions are read-only by default")
	default:
		e.ok(check, "PostgreSQL %s answers", server.Version)
	}
	if e.migrated(within, db) {
		e.books(within)
	}
}

// reason prefers the plain word where it was our patience that ended.
func reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("no answer within " + examineTimeout.String())
	}
	return err
}

func (e *examination) encryption() {
	const check, mend = "database tls", "add ?sslmode=verify-full (and sslrootcert=…) to DATABASE_URL"
	mode, local, err := ledger.Encryption(e.cfg.DatabaseURL)
	switch {
	case err != nil:
		e.found(problem, check, "look at its options and at the PG… variables of the environment", "%v", err)
	case local:
		e.ok(check, "not needed: the server is on this machine")
	case mode == "verify-full":
		e.ok(check, "sslmode=verify-full")
	case mode == "verify-ca" || mode == "require":
		e.found(warning, check, mend, "sslmode=%s does not make sure of who answers", mode)
	default:
		e.found(warning, check, mend, "sslmode=%s: the books may travel in the clear", mode)
	}
}

func (e *examination) migrated(ctx context.Context, db *sqlx.DB) bool {
	const check = "schema"
	pending, ahead, err := migrations.Pending(ctx, db.DB)
	switch {
	case err != nil:
		e.found(problem, check, "look at the rights of the database's user", "can't be looked at: %v", reason(ctx, err))
	case pending > 0:
		e.found(problem, check, "lockstep migrate, or start lockstep serve, which does the same", "%d migrations are to be applied", pending)
	case ahead > 0:
		e.found(warning, check, "run the build that the others run", "a newer build has applied %d migrations that this one does not know", ahead)
	default:
		e.ok(check, "up to date")
	}
	return err == nil && pending == 0
}

// books asks the ledger for what a gateway won't start without.
func (e *examination) books(ctx context.Context) {
	l, err := ledger.Open(ctx, ledger.Options{URL: e.cfg.DatabaseURL, DefaultAsset: e.cfg.DefaultAsset, Render: handlers.Render})
	if err != nil {
		e.found(problem, "database", "look at the server's log", "the books can't be opened: %v", reason(ctx, err))
		return
	}
	defer l.Close()
	keys, err := l.Keys(ctx)
	valid := 0
	for _, k := range keys {
		if k.RevokedAt == nil {
			valid++
		}
	}
	switch {
	case err != nil:
		e.found(problem, "api keys", "look at the server's log", "can't be read: %v", reason(ctx, err))
	case valid == 0 && e.cfg.APIKey == "":
		e.found(problem, "api keys", "lockstep keys create -name app -scopes usage,read,write, or set LOCKSTEP_API_KEY", "there is none that is valid: nobody can call the API")
	case valid == 0:
		e.ok("api keys", "LOCKSTEP_API_KEY is the only one")
	default:
		e.ok("api keys", "%d valid", valid)
	}
	if _, err := l.Asset(ctx, e.cfg.DefaultAsset); err != nil {
		e.found(problem, "default asset", "set DEFAULT_ASSET to a currency such as usd, or make the asset with PUT /v1/assets/{code}", "%v", err)
		return
	}
	e.ok("default asset", "%s is known", e.cfg.DefaultAsset)
}
