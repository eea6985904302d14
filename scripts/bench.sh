#!/bin/sh
# Measures the gateway against pgbench on one PostgreSQL. See `scripts/bench.sh -help`.
set -eu
cd "$(dirname "$0")/.."
exec go run ./cmd/lockstep bench "$@"
