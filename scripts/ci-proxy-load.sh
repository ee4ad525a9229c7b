#!/usr/bin/env bash
# Load through a real proxy, server-sent events and plain answers mixed, for a bounded time.
#
#   scripts/ci-proxy-load.sh [--seconds N] [--concurrency N] [--output FILE] [FLM]
#
# Passes when fewer than 0.5 % of the requests fail; prints p50, p95 and p99 as JSON, and writes them to FILE. Engine and
# client are scripts/proxy_load.py, on loopback; the figures say whether something broke, not how fast FLM is: that is what
# scripts/bench.sh measures. Needs python3 and a built flm, release preferred.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=20 concurrency=16 output=
target=${CARGO_TARGET_DIR:-target}
flm=$target/release/flm
[ -x "$flm" ] || flm=$target/debug/flm
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=$2; shift ;;
    --concurrency) concurrency=$2; shift ;;
    --output) output=$2; shift ;;
    -*) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 1 ;;
    *) flm=$1 ;;
  esac
  shift
done
[ -x "$flm" ] || { printf 'error: %s is not there\nhint: run: cargo build --release --bin flm\n' "$flm" >&2; exit 1; }

work=$(mktemp -d /tmp/flm-load.XXXXXX)
export FLM_HOME=$work/home HOME=$work FLM_ENGINE_DETECT_AT_START=false FLM_ENGINE_SLOTS=64
engine=
# shellcheck disable=SC2329 # called by the trap
clean_up() {
  "$flm" proxy stop --all >/dev/null 2>&1 || true
  if [ -n "$engine" ]; then kill "$engine" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap clean_up EXIT
field() { python3 -c 'import functools, json, sys
print(functools.reduce(lambda value, key: value[int(key) if key.isdigit() else key], sys.argv[1].split("."), json.load(sys.stdin)))' "$1"; }

python3 scripts/proxy_load.py engine >"$work/engine" &
engine=$!
for _ in $(seq 100); do [ -s "$work/engine" ] && break; sleep 0.05; done
"$flm" engines add --kind openai --id load --url "http://127.0.0.1:$(cat "$work/engine")" --format json >/dev/null
"$flm" proxy start --port 0 --format json >/dev/null
port=$("$flm" proxy status --format json | field data.listeners.0.config.port)
key=$("$flm" api-keys create --label load --rpm 0 --format json | field data.key)
status=0
python3 scripts/proxy_load.py load --url "http://127.0.0.1:$port" --key "$key" \
  --seconds "$seconds" --concurrency "$concurrency" >"$work/result.json" || status=$?
cat "$work/result.json"
if [ -n "$output" ]; then cp "$work/result.json" "$output"; fi
if [ "$status" != 0 ]; then
  printf 'error: too many requests failed, or none was sent\nhint: the log is below; %s\n' \
    "run it again with --concurrency 1 to see whether load is the cause" >&2
  tail -n 20 "$work"/home/logs/*.log >&2 || true
  exit 1
fi
