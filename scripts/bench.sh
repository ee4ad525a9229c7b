#!/usr/bin/env bash
# Measures what FLM costs beside a bare hyper pass-through and nginx; prints one table (docs/benchmarks.md).
#
#   scripts/bench.sh [--quick] [--rounds N] [--held STREAMS] [--targets nginx,per-core,work-stealing,flm]
#
# nginx comes from scripts/install-test-components.sh. A run counts only if the baseline stays within 1.3x of nginx.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v nginx >/dev/null; then
  echo "error: nginx is missing, and the bench judges its own baseline by it" >&2
  echo "hint: run scripts/install-test-components.sh" >&2
  exit 1
fi
exec cargo bench --bench proxy -- "$@"
