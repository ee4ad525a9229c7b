#!/usr/bin/env bash
# Smoke of every command over a temporary home: each answers, its JSON has the one shape, exit codes are as promised.
#
#   scripts/ci-cli.sh [FLM]      FLM: the program, default $CARGO_TARGET_DIR/debug/flm
#
# Needs python3. Contacts nothing but loopback; the engine is a small one of its own (scripts/proxy_load.py engine). What a
# command does is tested in tests/cli; this runs what is shipped, as a user would, and finds a command that nobody tried.
set -euo pipefail
cd "$(dirname "$0")/.."

flm=${1:-${CARGO_TARGET_DIR:-target}/debug/flm}
[ -x "$flm" ] || { printf 'error: %s is not there\nhint: run: cargo build --bin flm\n' "$flm" >&2; exit 1; }
flm=$(realpath "$flm")

# A short path: a socket's has at most 107 bytes.
work=$(mktemp -d /tmp/flm-ci.XXXXXX)
export FLM_HOME=$work/home HOME=$work FLM_ENGINE_DETECT_AT_START=false NO_COLOR=1
engine=
# shellcheck disable=SC2329 # called by the trap
clean_up() {
  "$flm" proxy stop --all >/dev/null 2>&1 || true
  if [ -n "$engine" ]; then kill "$engine" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap clean_up EXIT

passed=0
tried=$work/tried
: >"$tried"
fail() {
  printf 'error: flm %s\n%s\n' "$1" "$2" >&2
  exit 1
}
# The words of a command line up to the first option or value: "api-keys create".
note() { printf '%s\n' "$*" >>"$tried"; }
# answers NAME ARGUMENT…: succeeds as JSON of the one shape and as text; prints the JSON. The first word that is "+"
# ends the command's own name.
answers() {
  local name=() out
  while [ "$1" != + ]; do name+=("$1"); shift; done
  shift
  note "${name[*]}"
  out=$("$flm" "${name[@]}" "$@" --format json) || fail "${name[*]} $*" "$out"
  python3 - "$out" <<'PYTHON' || fail "${name[*]} $*" "its JSON has another shape: $out"
import json, sys
answer = json.loads(sys.argv[1].strip().splitlines()[-1])
assert answer.get("version") == "1.0" and set(answer) == {"version", "data"}, answer
PYTHON
  passed=$((passed + 1))
  printf '%s\n' "$out"
}
# reads NAME… + ARGUMENT…: as `answers`, and as text too; for commands that change nothing.
reads() {
  local name=()
  local all=("$@")
  answers "$@" >/dev/null
  while [ "$1" != + ]; do name+=("$1"); shift; done
  shift
  "$flm" "${name[@]}" "$@" --format text >/dev/null 2>"$work/err" || fail "${all[*]}" "$(cat "$work/err")"
  passed=$((passed + 1))
}
# refuses CODE EXIT NAME… + ARGUMENT…: fails with this code and exit status, as JSON with a message.
refuses() {
  local code=$1 status=$2 got=0 out
  shift 2
  local name=()
  while [ "$1" != + ]; do name+=("$1"); shift; done
  shift
  note "${name[*]}"
  out=$("$flm" "${name[@]}" "$@" --format json 2>/dev/null) || got=$?
  [ "$got" = "$status" ] || fail "${name[*]} $*" "exit $got instead of $status: $out"
  python3 - "$out" "$code" <<'PYTHON' || fail "${name[*]} $*" "not the error $code: $out"
import json, sys
answer = json.loads(sys.argv[1].strip().splitlines()[-1])
assert set(answer) == {"error"} and answer["error"]["code"] == sys.argv[2] and answer["error"]["message"], answer
PYTHON
  passed=$((passed + 1))
}
# field PATH: a value of the JSON on stdin, such as data.view.id.
field() { python3 -c 'import functools, json, sys
print(functools.reduce(lambda value, key: value[int(key) if key.isdigit() else key], sys.argv[1].split("."), json.load(sys.stdin)))' "$1"; }

# --- an engine, the proxy, a key
python3 scripts/proxy_load.py engine >"$work/engine" &
engine=$!
for _ in $(seq 100); do [ -s "$work/engine" ] && break; sleep 0.05; done
port=$(cat "$work/engine")
answers version + >/dev/null
reads config path +
reads config list +
reads config get + log.level
answers config set + log.level info >/dev/null
refuses NOT_FOUND 1 config get + no.such.setting
answers engines add + --kind openai --id lab --url "http://127.0.0.1:$port" >/dev/null
refuses NOT_FOUND 1 proxy status +
answers proxy start + --port 0 >/dev/null
reads proxy status +
answers proxy reload + --all >/dev/null
reads engines list +
answers engines detect + >/dev/null
reads engines health + lab --since 1h
refuses ENGINE_NOT_FOUND 1 engines health + nobody
key=$(answers api-keys create + --label smoke --models '*' --rpm 0)
id=$(field data.view.id <<<"$key")
reads api-keys list +
reads api-keys show + "$id"
answers api-keys edit + "$id" --priority high >/dev/null
new=$(answers api-keys rotate + "$id" | field data.view.id)

# --- models
reads models list +
reads models show + demo
answers aliases set + fast lab/demo >/dev/null
reads aliases list +
answers chat + --model fast --prompt hello >/dev/null
answers bench + --model demo --duration 1s --concurrency 2 >/dev/null
answers models compare + demo fast --prompt hello --max-tokens 8 --save >/dev/null
number=$("$flm" models comparisons list --format json | field data.0.id)
reads models comparisons list +
reads models comparisons show + "$number"
note models comparisons export
"$flm" models comparisons export "$number" --as markdown --output "$work/compared.md" >/dev/null || fail "models comparisons export" "failed"
answers models comparisons delete + "$number" >/dev/null
answers models refresh + >/dev/null
answers aliases remove + fast >/dev/null
for what in load unload pull delete; do
  if [ "$what" = pull ]; then model=lab/demo; else model=demo; fi
  refuses ENGINE_API_ERROR 1 models "$what" + "$model"
done
printf '{"temperature": 0.2, "pinned": ["temperature"]}' >"$work/profile.json"
profile=$(answers model-profiles save + --engine lab --model demo --label calm --params "$work/profile.json" | field data.id)
reads model-profiles list +
answers model-profiles delete + --id "$profile" >/dev/null
printf 'Answer in one sentence.' >"$work/prompt.txt"
answers api prompts set + --api-id chat.completions --file "$work/prompt.txt" >/dev/null
reads api prompts list +
reads api prompts show + --api-id chat.completions
printf 'Answer in two sentences.' >"$work/prompt.txt"
answers api prompts set + --api-id chat.completions --file "$work/prompt.txt" >/dev/null
reads api prompts history + --api-id chat.completions
reads api prompts diff + --api-id chat.completions --from 1 --to 2
answers api prompts restore + --api-id chat.completions --version 1 >/dev/null
answers api prompts delete + --api-id chat.completions >/dev/null
reads connect + curl --model demo

# --- security
answers security ip-blocklist add + 203.0.113.7 --for 2h --reason smoke >/dev/null
reads security ip-blocklist list +
answers security ip-blocklist unblock + 203.0.113.7 >/dev/null
answers security ip-blocklist add + 203.0.113.0/24 --for 2h --reason smoke >/dev/null
note security ip-blocklist export
"$flm" security ip-blocklist export >"$work/blocks.txt" || fail "security ip-blocklist export" "failed"
answers security ip-blocklist clear + >/dev/null
answers security ip-blocklist import + "$work/blocks.txt" >/dev/null
answers security ip-allowlist add + 127.0.0.0/8 >/dev/null
reads security ip-allowlist list +
answers security ip-allowlist remove + 127.0.0.0/8 >/dev/null
answers security ip-trusted add + 198.51.100.0/24 >/dev/null
reads security ip-trusted list +
answers security ip-trusted remove + 198.51.100.0/24 >/dev/null
reads security audit-logs list + --limit 5
reads security audit-logs verify +
answers security audit-logs export + --output "$work/audit.json" >/dev/null
reads security stats + --since 1h
reads security policy show +
note security policy schema
"$flm" security policy schema | python3 -c 'import json, sys; assert "properties" in json.load(sys.stdin)'
printf '{}' >"$work/policy.json"
answers security policy validate + --json "$work/policy.json" >/dev/null
answers security policy set + --json "$work/policy.json" >/dev/null
refuses POLICY_INVALID 1 security policy validate + --json "$work/profile.json"
reads alerts list +
note alerts add command
"$flm" alerts add command --id smoke -- /bin/true >/dev/null || fail "alerts add command" "failed"
answers alerts add terminal + --id bell >/dev/null
answers alerts add ntfy + --id phone --topic flm-4f9c2a71b0e8 >/dev/null
answers alerts add webhook + --id ops --url https://alerts.example.org/flm >/dev/null
answers alerts edit + ops --off >/dev/null
answers alerts test + smoke >/dev/null
reads alerts deliveries +
reads alerts inbox +
answers alerts read + --all >/dev/null
for channel in bell ops phone smoke; do answers alerts remove + "$channel" >/dev/null; done
answers security audit-logs archive + --before 90d >/dev/null
answers security ca init + >/dev/null
reads security ca show +
answers security ca issue + --name localhost --output "$work" >/dev/null
note security ca export
"$flm" security ca export --output "$work/root.pem" >/dev/null || fail "security ca export" "failed"

# --- what happened, what would be, moving in
reads usage + --by model
note logs requests
"$flm" logs requests --format jsonl | while read -r row; do python3 -c 'import json, sys; json.loads(sys.argv[1])' "$row"; done
"$flm" logs requests --format jsonl >"$work/requests.jsonl"
reads security replay + "$work/requests.jsonl"
reads firewall preview + --backend nftables
reads firewall status +
reads expose-check +
reads check +
reads logs +
reads logs captures +
answers logs captures clear + >/dev/null
reads security events +
reads security lock-status +
reads security certificate status +
reads proxy check + --port 0
reads security backup list +
answers security backup create + --output "$work/backups" >/dev/null
answers man + --output "$work/man" >/dev/null
python3 scripts/make_legacy_sample.py "$work/legacy"
reads migrate legacy plan + --source "$work/legacy"
answers migrate legacy convert + --source "$work/legacy" --tmp "$work/converted" >/dev/null
refuses INVALID_ARGUMENT 1 migrate legacy apply + --source "$work/legacy"
answers migrate legacy apply + --source "$work/legacy" --confirm >/dev/null
reads doctor +
for shell in bash zsh fish; do "$flm" completions "$shell" >/dev/null || fail "completions $shell" "failed"; done
note completions
answers api-keys revoke + "$new" >/dev/null
answers engines remove + lab >/dev/null
answers proxy stop + --all >/dev/null
reads doctor +

# --- every other command at least explains itself
walk() {
  local help names name
  help=$("$flm" "$@" --help) || fail "$* --help" "failed"
  names=$(awk '/^Commands:$/ { on = 1; next } on && !/^  / { exit } on && /^  [a-z]/ && $1 != "help" { print $1 }' <<<"$help")
  if [ -z "$names" ]; then
    grep -q "Example" <<<"$help" || fail "$* --help" "it shows no example"
    grep -qxF "$*" "$tried" || printf 'only its help was tried: flm %s\n' "$*"
    passed=$((passed + 1))
  fi
  for name in $names; do walk "$@" "$name"; done
}
walk

printf 'ci-cli: %d checks passed\n' "$passed"
