// Package migrations holds the schema, as numbered SQL that reads as a document, and applies it.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"log/slog"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed *.sql
var files embed.FS

// Up brings the schema of db to the newest version. Several processes may call it at once: a lock in the
// database lets one of them work while the others wait. It returns how many migrations it applied.
func Up(ctx context.Context, db *sql.DB) (int, error) {
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return 0, err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithSessionLocker(locker), goose.WithSlog(slog.New(slog.DiscardHandler)))
	if err != nil {
		return 0, err
	}
	applied, err := p.Up(ctx)
	if err != nil {
		return len(applied), fmt.Errorf("migrate: %w", err)
	}
	return len(applied), nil
}

// Pending is how many migrations Up would apply to db, and ahead how many were applied that this build does not know.
// It only reads.
func Pending(ctx context.Context, db *sql.DB) (pending, ahead int, err error) {
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSlog(slog.New(slog.DiscardHandler)))
	if err != nil {
		return 0, 0, err
	}
	known := map[int64]bool{}
	for _, s := range p.ListSources() {
		known[s.Version] = true
	}
	var exists bool
	if err := db.QueryRowContext(ctx, `select to_regclass($1) is not null`, goose.DefaultTablename).Scan(&exists); err != nil || !exists {
		return len(known), 0, err
	}
	// Version 0 is goose's own mark that the table is there.
	rows, err := db.QueryContext(ctx, `select distinct version_id from `+goose.DefaultTablename+` where is_applied and version_id > 0`)
	if err != nil {
		return 0, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var v int64
		if err := rows.Scan(&v); err != nil {
			return 0, 0, err
		}
		if !known[v] {
			ahead++
		}
		delete(known, v)
	}
	return len(known), ahead, rows.Err()
}
