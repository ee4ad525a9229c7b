#!/usr/bin/env bash
# Gets a certificate from Pebble by HTTP-01 and by DNS-01 (wildcard, BIND), serves it to curl and renews it; loopback only.
#
#   FLM=target/debug/flm scripts/ci-acme-smoke.sh
#
# Pebble and BIND come from scripts/install-test-components.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
flm=${FLM:-target/debug/flm}

fail() {
  printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
  exit 1
}
[ -x "$flm" ] || fail "$flm is missing" "build it with cargo build, or set FLM"
export PATH=$PATH:/usr/sbin:/sbin
for program in pebble named curl openssl python3; do
  command -v "$program" >/dev/null || fail "$program is missing" "run scripts/install-test-components.sh"
done

work=$(mktemp -d /tmp/flm-acme-XXXXXX)
pids=()
cleanup() {
  "$flm" proxy stop --all >/dev/null 2>&1 || true
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
export FLM_HOME=$work/home FLM_ENGINE_DETECT_AT_START=false

# Six free ports, held at the same time while they are chosen.
read -r plain secure directory roots dns tls_alpn < <(python3 -c '
import socket
held = [socket.socket() for _ in range(6)]
for one in held: one.bind(("127.0.0.1", 0))
print(*[one.getsockname()[1] for one in held])')

# --- name server --------------------------------------------------------------------------------------------------
secret=$(openssl rand -base64 32)
printf '$TTL 60\n@ IN SOA ns.flm.test. ops.flm.test. 1 60 60 60 60\n@ IN NS ns.flm.test.\n@ IN A 127.0.0.1\n* IN A 127.0.0.1\n' >"$work/zone"
cat >"$work/named.conf" <<CONFIG
options { directory "$work"; listen-on port $dns { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; pid-file none; session-keyfile none; };
controls { };
key "flm-key" { algorithm hmac-sha256; secret "$secret"; };
zone "flm.test" { type primary; file "$work/zone"; update-policy { grant flm-key zonesub TXT; }; };
CONFIG
named -g -c "$work/named.conf" >"$work/named.log" 2>&1 &
pids+=($!)

# --- directory ----------------------------------------------------------------------------------------------------
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj "/CN=smoke root" -keyout "$work/ca.key" \
  -out "$work/ca.pem" 2>/dev/null
printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' >"$work/extensions"
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=pebble -keyout "$work/pebble.key" 2>/dev/null \
  | openssl x509 -req -days 1 -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -extfile "$work/extensions" \
    -out "$work/pebble.pem" 2>/dev/null
cat >"$work/pebble.json" <<CONFIG
{"pebble":{"listenAddress":"127.0.0.1:$directory","managementListenAddress":"127.0.0.1:$roots","certificate":"$work/pebble.pem",
"privateKey":"$work/pebble.key","httpPort":$plain,"tlsPort":$tls_alpn,"ocspResponderURL":"","externalAccountBindingRequired":false}}
CONFIG
PEBBLE_VA_NOSLEEP=1 PEBBLE_AUTHZREUSE=0 PEBBLE_WFE_NONCEREJECT=15 pebble -config "$work/pebble.json" -dnsserver "127.0.0.1:$dns" \
  >"$work/pebble.log" 2>&1 &
pids+=($!)
for _ in $(seq 300); do
  curl --silent --fail --noproxy '*' --cacert "$work/ca.pem" "https://localhost:$directory/dir" >/dev/null 2>&1 && break
  sleep 0.1
done
curl --silent --show-error --fail --noproxy '*' --cacert "$work/ca.pem" "https://localhost:$roots/roots/0" >"$work/root.pem"

# --- FLM ----------------------------------------------------------------------------------------------------------
health() {
  curl --silent --show-error --fail --noproxy '*' --cacert "$work/root.pem" --resolve "$1:$secure:127.0.0.1" "https://$1:$secure/health" >/dev/null
}
fingerprint() {
  "$flm" proxy status --format json \
    | python3 -c 'import json, sys; print(json.load(sys.stdin)["data"]["listeners"][0]["tls"]["certificate"]["fingerprint"])'
}
start() {
  "$flm" proxy start --mode https-acme --bind 127.0.0.1 --port "$plain" --https-port "$secure" --acme-email ops@flm.test \
    --acme-agree-tos --acme-directory "https://localhost:$directory/dir" --acme-ca-file "$work/ca.pem" --format text "$@"
}

echo "acme smoke: http-01"
start --acme-domain llm.flm.test
health llm.flm.test
before=$(fingerprint)

echo "acme smoke: renewal"
"$flm" security certificate renew --format text
[ "$(fingerprint)" != "$before" ] || fail "the certificate is the same after its renewal" "look at flm security certificate status"
health llm.flm.test
"$flm" proxy stop --all --format text

echo "acme smoke: dns-01 with a wildcard"
(umask 077 && printf '%s\n' "$secret" >"$work/tsig")
"$flm" config set acme.dns.provider rfc2136 >/dev/null
"$flm" config set acme.dns.rfc2136_server "127.0.0.1:$dns" >/dev/null
"$flm" config set acme.dns.resolvers "127.0.0.1:$dns" >/dev/null
"$flm" config set acme.dns.user flm-key >/dev/null
"$flm" config set acme.dns.secret_file "$work/tsig" >/dev/null
start --acme-challenge dns-01 --acme-domain flm.test --acme-domain '*.flm.test'
health anything.flm.test
openssl s_client -connect "127.0.0.1:$secure" -servername deep.flm.test -verify_hostname deep.flm.test -CAfile "$work/root.pem" \
  -verify_return_error -brief </dev/null
"$flm" security audit-logs verify --format text
echo "acme smoke: fine"
