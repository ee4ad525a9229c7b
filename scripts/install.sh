#!/bin/sh
# Installs FLM from a folder with its programs: a release archive that was unpacked, or target/release of a checkout.
#
#   scripts/install.sh [--user | --system] [--prefix DIR] [--from DIR] [--no-service] [--dry-run]
#
#   --user          for you alone: ~/.local, a user unit of systemd, no root. The default, unless you are root
#   --system        for the machine: /usr/local, a user flm, a hardened system unit
#   --prefix DIR    programs into DIR/bin, completions and man pages into DIR/share
#   --from DIR      where flm and flm-tui are            [default: bin or target/release beside this script's folder]
#   --no-service    no unit
#   --dry-run       say what would be done, and do nothing
#
# Running it again updates what is there; data, keys and settings are never touched. Nothing is downloaded.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
mode=
prefix=
from=
service=yes
dry_run=no

fail() {
  printf 'error: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
  exit 1
}
say() { printf 'flm: %s\n' "$*"; }
# Does something, or says it.
run() {
  if [ "$dry_run" = yes ]; then
    printf 'would run: %s\n' "$*"
  else
    "$@"
  fi
}

while [ $# -gt 0 ]; do
  case $1 in
    --user) mode=user ;;
    --system) mode=system ;;
    --prefix) prefix=${2:?"--prefix needs a folder"}; shift ;;
    --from) from=${2:?"--from needs a folder"}; shift ;;
    --no-service) service=no ;;
    --dry-run) dry_run=yes ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d'; exit 0 ;;
    *) fail "unknown option $1" "see $0 --help" ;;
  esac
  shift
done

[ -n "$mode" ] || { [ "$(id -u)" = 0 ] && mode=system || mode=user; }
if [ "$mode" = system ] && [ "$(id -u)" != 0 ] && [ "$dry_run" = no ] && [ -z "$prefix" ]; then
  fail "installing for the machine takes root" "sudo $0 --system, or $0 --user for you alone"
fi
[ -n "$prefix" ] || { [ "$mode" = system ] && prefix=/usr/local || prefix=${HOME:?}/.local; }
case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
if [ -z "$from" ]; then
  for from in "$here/bin" "$here/target/release"; do
    [ ! -x "$from/flm" ] || break
  done
fi
for program in flm flm-tui; do
  [ -x "$from/$program" ] || fail "$from/$program is not there" "name the folder with --from, or build it: cargo build --release"
done
"$from/flm" version --format text >/dev/null 2>&1 \
  || fail "$from/flm does not run on this machine" "it may be of another architecture or need a newer C library; build it here: cargo build --release"

say "programs into $prefix/bin"
run install -d -m 755 "$prefix/bin"
for program in flm flm-tui; do
  # Beside and then over: a program that runs keeps its own file.
  run install -m 755 "$from/$program" "$prefix/bin/.$program.new"
  run mv -f "$prefix/bin/.$program.new" "$prefix/bin/$program"
done

say "completions and man pages into $prefix/share"
run install -d -m 755 "$prefix/share/bash-completion/completions" "$prefix/share/zsh/site-functions" \
  "$prefix/share/fish/vendor_completions.d" "$prefix/share/man/man1"
if [ "$dry_run" = no ]; then
  "$from/flm" completions bash >"$prefix/share/bash-completion/completions/flm"
  "$from/flm" completions zsh >"$prefix/share/zsh/site-functions/_flm"
  "$from/flm" completions fish >"$prefix/share/fish/vendor_completions.d/flm.fish"
  "$from/flm" man --output "$prefix/share/man/man1" >/dev/null
fi

has_systemd() { command -v systemctl >/dev/null && [ -d /run/systemd/system ]; }

install_system_service() {
  unit=/etc/systemd/system/flm.service
  say "unit $unit, user flm, data in /var/lib/flm, key of the database in /etc/flm/db.key"
  getent group flm >/dev/null || run groupadd --system flm
  getent passwd flm >/dev/null \
    || run useradd --system --gid flm --home-dir /var/lib/flm --no-create-home --shell /usr/sbin/nologin flm
  run install -d -m 700 /etc/flm
  if [ ! -s /etc/flm/db.key ]; then
    if [ "$dry_run" = yes ]; then
      printf 'would draw: /etc/flm/db.key (0600)\n'
    else
      (umask 077 && od -An -tx1 -N32 /dev/urandom | tr -d ' \n' >/etc/flm/db.key.new && echo >>/etc/flm/db.key.new)
      mv /etc/flm/db.key.new /etc/flm/db.key
    fi
  fi
  if [ "$dry_run" = yes ]; then
    printf 'would write: %s\n' "$unit"
  else
    sed "s|/usr/bin/flm|$prefix/bin/flm|" "$here/assets/systemd/system/flm.service" >"$unit.new"
    chmod 644 "$unit.new"
    mv "$unit.new" "$unit"
  fi
  if has_systemd; then
    run systemctl daemon-reload
    # What ran the old program runs the new one; a first installation is started by hand.
    run systemctl try-restart flm
  fi
  say "start it with: systemctl enable --now flm"
  say "whoever is in the group flm uses it with: flm --home /var/lib/flm …"
}

install_user_service() {
  folder=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
  say "unit $folder/flm.service"
  run install -d -m 755 "$folder"
  if [ "$dry_run" = yes ]; then
    printf 'would write: %s\n' "$folder/flm.service"
  else
    sed "s|@BINDIR@|$prefix/bin|" "$here/assets/systemd/user/flm.service" >"$folder/.flm.service.new"
    mv "$folder/.flm.service.new" "$folder/flm.service"
  fi
  if has_systemd && systemctl --user show-environment >/dev/null 2>&1; then
    run systemctl --user daemon-reload
    run systemctl --user try-restart flm
  fi
  say "start it with: systemctl --user enable --now flm"
}

if [ "$service" = yes ]; then
  if [ "$mode" = system ]; then install_system_service; else install_user_service; fi
fi
case :$PATH: in
  *:"$prefix/bin":*) ;;
  *) say "$prefix/bin is not in PATH: add it, or call $prefix/bin/flm" ;;
esac
if [ "$dry_run" = yes ]; then say "nothing was changed"; else say "done: $("$prefix/bin/flm" version --format text)"; fi
