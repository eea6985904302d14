package ledger

import (
	"context"
	"database/sql/driver"
	"errors"

	"github.com/lib/pq"
)

// To plan one of our statements takes PostgreSQL longer than to run it. So a connection of the pool prepares what it is
// asked for again, and PostgreSQL keeps the plan, as soon as it finds that one plan serves all parameters. What is asked
// for once, or has no parameters, is sent as it is.

// preparedAtMost bounds what a connection keeps: each statement takes some 50 kB of its server process. There are fewer
// texts than this that a service keeps asking.
const preparedAtMost = 256

// preparing opens such connections.
type preparing struct{ *pq.Connector }

func (p preparing) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := p.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &preparingConn{pqConn: conn.(pqConn), statements: make(map[string]statement)}, nil
}

// pqConn is all that a connection of lib/pq does for database/sql.
type pqConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.QueryerContext
	driver.SessionResetter
	driver.Validator
}

// statement is what a statement of lib/pq does.
type statement interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

type preparingConn struct {
	pqConn
	statements map[string]statement // by their text; nil: asked for once
}

func (c *preparingConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return run(ctx, c, query, args, statement.QueryContext, c.pqConn.QueryContext)
}

func (c *preparingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return run(ctx, c, query, args, statement.ExecContext, c.pqConn.ExecContext)
}

// run runs a statement under its name, where it has one or gets it now, or else as it is.
func run[T any](ctx context.Context, c *preparingConn, query string, args []driver.NamedValue,
	named func(statement, context.Context, []driver.NamedValue) (T, error), plain func(context.Context, string, []driver.NamedValue) (T, error)) (T, error) {
	if len(args) == 0 {
		return plain(ctx, query, args)
	}
	s, err := c.statement(ctx, query)
	if err != nil {
		var none T
		return none, err
	}
	if s == nil {
		return plain(ctx, query, args)
	}
	result, err := named(s, ctx, args)
	if !outlived(err) {
		return result, err
	}
	for text := range c.statements { // what befell one befell others: a transaction is not to find them one by one
		c.forget(text)
	}
	again, failed := plain(ctx, query, args)
	var pe *pq.Error
	if errors.As(failed, &pe) && pe.Code == "25P02" { // in_failed_sql_transaction: only all of it can be run again
		return result, err
	}
	return again, failed
}

// statement answers the prepared statement of a text that was asked for before, else nil.
func (c *preparingConn) statement(ctx context.Context, query string) (statement, error) {
	s, again := c.statements[query]
	if s != nil {
		return s, nil
	}
	if again {
		prepared, err := c.PrepareContext(ctx, query)
		if err != nil {
			return nil, err
		}
		s = prepared.(statement)
	} else if len(c.statements) >= preparedAtMost {
		for text := range c.statements { // any of them: what is asked for often comes back
			c.forget(text)
			break
		}
	}
	c.statements[query] = s
	return s, nil
}

func (c *preparingConn) forget(text string) {
	if s := c.statements[text]; s != nil {
		_ = s.Close() // only a connection that is lost says that it can't
	}
	delete(c.statements, text)
}

// outlived reports whether err says of a prepared statement that it is none any more: the tables that it reads have
// changed, or somebody between us and the server, or there, has forgotten it. Nothing was done then.
func outlived(err error) bool {
	var pe *pq.Error
	return errors.As(err, &pe) && (pe.Code == "0A000" || pe.Code == "26000") // feature_not_supported, invalid_sql_statement_name
}
