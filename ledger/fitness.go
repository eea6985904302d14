package ledger

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// MinPostgres is the oldest PostgreSQL whose SQL this package's is, as server_version_num has it.
const MinPostgres = 140000

// Server is what there is to know of a database server before anything is kept in it.
type Server struct {
	Number   int    `db:"number"`  // server_version_num: 150004 is 15.4
	Version  string `db:"version"` // as the server says it
	ReadOnly bool   `db:"read_only"`
}

// ServerOf asks a database what it is. It only reads.
func ServerOf(ctx context.Context, db *sqlx.DB) (Server, error) {
	var s Server
	err := db.GetContext(ctx, &s, `select current_setting('server_version_num')::int as number, current_setting('server_version') as version,
		pg_is_in_recovery() or current_setting('default_transaction_read_only')::bool as read_only`)
	return s, err
}

// Encryption says of a database URL which sslmode it comes to, the environment's included, and whether the server is on
// this machine. Its errors never repeat the URL, which has a password in it.
func Encryption(url string) (sslmode string, local bool, err error) {
	c, err := pq.NewConfig(url)
	if err != nil {
		return "", false, errors.New("DATABASE_URL can't be read")
	}
	sslmode = string(c.SSLMode)
	if sslmode == "" {
		sslmode = string(pq.SSLModeRequire) // lib/pq's default
	}
	local = true
	for _, host := range append([]pq.ConfigMultihost{{Host: c.Host, Hostaddr: c.Hostaddr}}, c.Multi...) {
		local = local && (host.Hostaddr.IsLoopback() || !host.Hostaddr.IsValid() && localHost(host.Host))
	}
	return sslmode, local, nil
}

// localHost also knows the sockets of this machine, which are named by a path.
func localHost(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || host == "localhost" || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || ip != nil && ip.IsLoopback()
}
