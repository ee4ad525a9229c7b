#!/bin/sh
# Removes FLM as scripts/install.sh put it there: programs, completions, man pages, unit. Asks before it touches anything
# that install.sh did not put there: the certificate authority in the trust store, firewall rules, and your data.
#
#   scripts/uninstall.sh [--user | --system] [--prefix DIR] [--yes] [--purge] [--keep-ca] [--dry-run]
#
#   --user, --system, --prefix    as install.sh was given them
#   --yes           ask nothing: take the authority and the firewall rules out, and keep the data
#   --purge         remove the data too: databases, keys, settings, logs. There is no way back
#   --keep-ca       leave the certificate authority in the trust store
#   --dry-run       say what would be done, and do nothing
#
# Running it again finds nothing and says so.
set -eu

mode=
prefix=
answer=ask
purge=no
keep_ca=no
dry_run=no

fail() {
  printf 'error: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
  exit 1
}
say() { printf 'flm: %s\n' "$*"; }
run() {
  if [ "$dry_run" = yes ]; then
    printf 'would run: %s\n' "$*"
  else
    "$@"
  fi
}
# Whether the answer to a question is yes; nobody who could be asked means no.
asks() {
  [ "$answer" = ask ] || return 0
  [ "$dry_run" = no ] || return 0
  [ -t 0 ] || { say "not asked, since there is no terminal: $1"; return 1; }
  printf '%s [y/N] ' "$1"
  read -r typed || return 1
  case $typed in y | Y | yes) return 0 ;; *) return 1 ;; esac
}

while [ $# -gt 0 ]; do
  case $1 in
    --user) mode=user ;;
    --system) mode=system ;;
    --prefix) prefix=${2:?"--prefix needs a folder"}; shift ;;
    --yes) answer=yes ;;
    --purge) purge=yes ;;
    --keep-ca) keep_ca=yes ;;
    --dry-run) dry_run=yes ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d'; exit 0 ;;
    *) fail "unknown option $1" "see $0 --help" ;;
  esac
  shift
done

[ -n "$mode" ] || { [ "$(id -u)" = 0 ] && mode=system || mode=user; }
if [ "$mode" = system ] && [ "$(id -u)" != 0 ] && [ "$dry_run" = no ] && [ -z "$prefix" ]; then
  fail "removing FLM from the machine takes root" "sudo $0 --system"
fi
[ -n "$prefix" ] || { [ "$mode" = system ] && prefix=/usr/local || prefix=${HOME:?}/.local; }
case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
flm=$prefix/bin/flm

# Runs flm on the home that is being left.
on_home() {
  if [ "$mode" = system ] && [ -d /var/lib/flm ] && [ -z "${FLM_HOME:-}" ]; then
    # Without a running service this opens the databases as root; they are given back to their owner below.
    FLM_HOME=/var/lib/flm FLM_DB_KEY_FILE=/etc/flm/db.key "$flm" "$@" --format json
  else
    "$flm" "$@" --format json
  fi
}

if [ -x "$flm" ]; then
  if [ "$keep_ca" = no ] && on_home security ca show 2>/dev/null | grep -q '"installed":true'; then
    if asks "This system trusts FLM's certificate authority. Take it out of the trust store?"; then
      if [ "$dry_run" = yes ]; then
        printf 'would run: flm security ca uninstall\n'
      else
        on_home security ca uninstall >/dev/null \
          || say "it is still there: run 'flm security ca uninstall' as root before you remove the data"
      fi
    fi
  fi
  if on_home firewall status 2>/dev/null | grep -q '"in_force":{'; then
    if asks "Rules of FLM are in force in the firewall. Take them back?"; then
      if [ "$dry_run" = yes ]; then
        printf 'would run: flm firewall rollback --all\n'
      else
        on_home firewall rollback --all >/dev/null || say "they are still there: see docs/firewall.md"
      fi
    fi
  fi
fi

has_systemd() { command -v systemctl >/dev/null && [ -d /run/systemd/system ]; }
unit=
if [ "$mode" = system ]; then
  unit=/etc/systemd/system/flm.service
  manager="systemctl"
else
  unit=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user/flm.service
  manager="systemctl --user"
fi
# Only the unit of this prefix: another installation may have one of its own.
if [ -e "$unit" ] && grep -q "$prefix/bin/flm" "$unit"; then
  if has_systemd; then
    # shellcheck disable=SC2086
    run $manager disable --now flm || say "the unit was not running"
  fi
  run rm -f "$unit"
  if has_systemd; then
    # shellcheck disable=SC2086
    run $manager daemon-reload || true
  fi
fi
if [ -x "$flm" ]; then
  if [ "$dry_run" = yes ]; then
    printf 'would run: flm proxy stop --all\n'
  else
    on_home proxy stop --all >/dev/null 2>&1 || true
  fi
fi

for file in /var/lib/flm/*.db*; do
  [ "$mode" = system ] && [ -e "$file" ] && getent passwd flm >/dev/null || continue
  run chown flm:flm "$file"
done

removed=no
for file in "$prefix/bin/flm" "$prefix/bin/flm-tui" "$prefix/share/bash-completion/completions/flm" \
  "$prefix/share/zsh/site-functions/_flm" "$prefix/share/fish/vendor_completions.d/flm.fish" \
  "$prefix"/share/man/man1/flm.1 "$prefix"/share/man/man1/flm-*.1; do
  [ -e "$file" ] || continue
  run rm -f "$file"
  removed=yes
done
[ "$removed" = yes ] || say "no program of FLM is in $prefix"

if [ "$mode" = system ]; then
  data="/var/lib/flm /etc/flm"
else
  data="${XDG_DATA_HOME:-$HOME/.local/share}/flm ${XDG_CONFIG_HOME:-$HOME/.config}/flm ${XDG_STATE_HOME:-$HOME/.local/state}/flm"
fi
[ -z "${FLM_HOME:-}" ] || data=$FLM_HOME
for folder in $data; do
  [ -d "$folder" ] || continue
  # Never by --yes alone: there is no way back.
  if [ "$purge" = yes ] || { [ "$answer" = ask ] && [ "$dry_run" = no ] && asks "Remove $folder, with databases, keys and logs? There is no way back."; }; then
    run rm -rf "$folder"
  else
    say "kept: $folder"
  fi
done
if [ "$dry_run" = yes ]; then say "nothing was changed"; else say "done"; fi
