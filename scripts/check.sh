#!/usr/bin/env bash
# The house rules that no compiler knows: which room may import what, and what lies at the top level.
set -euo pipefail
cd "$(dirname "$0")/.."
bad=0

complain() { echo "check: $*" >&2; bad=1; }

# imports ROOM: what the room's packages, their tests left out, import.
imports() { go list -f '{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}{{"\n"}}{{end}}' "$@"; }

# forbid WHAT ROOM...: no package of the rooms may import what the pattern matches.
forbid() {
	local pattern=$1; shift
	local hits
	hits=$(imports "$@" | awk -v p="$pattern" '$2 ~ p')
	if [ -n "$hits" ]; then
		complain "forbidden imports (importer, imported):"$'\n'"$hits"
	fi
}

sql='^(database/sql|github.com/jmoiron/sqlx|github.com/lib/pq)'
stripe='^github.com/stripe/stripe-go'

forbid "$sql"                                        ./handlers/... ./stripeutil/...
forbid "$stripe"                                     ./handlers/... ./ledger/... ./migrations/...
forbid '^lockstep/(handlers|stripeutil|cmd)'         ./ledger/... ./migrations/...
forbid '^lockstep/(handlers|ledger|cmd|migrations)'  ./stripeutil/...
forbid '^lockstep/cmd'                               ./...
forbid '^lockstep/stripeutil'                        ./stripeutil/stripesim

for entry in $(git ls-files | cut -d/ -f1 | sort -u); do
	case $entry in
	cmd | handlers | ledger | stripeutil | migrations | scripts | go.mod | go.sum | README.md | LICENSE | .*) ;;
	*) complain "$entry does not belong at the top level" ;;
	esac
done

unformatted=$(gofmt -l cmd handlers ledger stripeutil migrations)
[ -z "$unformatted" ] || complain "not formatted:"$'\n'"$unformatted"

[ "$bad" = 0 ] && echo "check: the house is in order"
exit "$bad"
