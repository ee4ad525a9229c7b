#!/usr/bin/env bash
# Measures what FLM costs beside a bare hyper pass-through, nginx and haproxy; prints one table (docs/benchmarks.md).
#
#   scripts/bench.sh [--quick] [--rounds N] [--held STREAMS] [--only time|memory] [--json FILE]
#                    [--targets nginx,haproxy,per-core,work-stealing,flm]
#
# Ten interleaved rounds, some ten minutes; --only time takes five. nginx and haproxy come from scripts/install-test-components.sh, and
# are left out where they are not. A run counts only if the baseline stays within 1.3x of nginx. What --json writes,
# scripts/bench-regression.py holds against docs/benchmarks.json.
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo bench --locked --bench proxy -- "$@"
