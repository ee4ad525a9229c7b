#!/usr/bin/env bash
# Builds the Debian package from programs that are already built; compiles nothing.
#
#   scripts/build-deb.sh --bin DIR [--output DIR] [--fast]
#
#   --bin DIR       where flm and flm-tui are, such as target/release
#   --output DIR    where flm_VERSION_ARCH.deb goes    [default: target/package]
#   --fast          compress little, for tests
#
# Version and architecture are those of the program. The same programs give the same package, byte for byte
# (SOURCE_DATE_EPOCH is the time of everything in it; default: the last commit, else 2026-01-01).
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
bin=
output=$repository/target/package
level=9

fail() {
  printf 'error: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
  exit 1
}
while [ $# -gt 0 ]; do
  case $1 in
    --bin) bin=${2:?"--bin needs a folder"}; shift ;;
    --output) output=${2:?"--output needs a folder"}; shift ;;
    --fast) level=1 ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d'; exit 0 ;;
    *) fail "unknown option $1" "see $0 --help" ;;
  esac
  shift
done
[ -n "$bin" ] || fail "--bin is missing" "build first (cargo build --release), then: $0 --bin target/release"
for program in flm flm-tui; do
  [ -x "$bin/$program" ] || fail "$bin/$program is not there" "cargo build --release"
done
command -v dpkg-deb >/dev/null || fail "dpkg-deb is missing" "apt-get install dpkg"

version=$("$bin/flm" version --format json | sed -n 's/.*"data":.*"version":"\([^"]*\)".*/\1/p')
[ -n "$version" ] || fail "$bin/flm does not tell its version"
# e_machine of the ELF header (elf(5)): two bytes at 18.
case $(od -An -tu2 -j18 -N2 "$bin/flm" | tr -d ' ') in
  62) architecture=amd64 ;;
  183) architecture=arm64 ;;
  *) fail "$bin/flm is of no architecture that FLM is packaged for" "x86-64 and aarch64 are" ;;
esac
# The newest version of the C library that the programs ask for.
libc=$(cat "$bin/flm" "$bin/flm-tui" | grep -ao 'GLIBC_2\.[0-9]\{1,2\}' | sort -uV | tail -n 1 | cut -d_ -f2)
[ -n "$libc" ] || fail "$bin/flm does not say which C library it needs"
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$repository" log -1 --format=%ct 2>/dev/null || echo 1767225600)}
export SOURCE_DATE_EPOCH=$epoch

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
umask 022
install -D -m 755 "$bin/flm" "$root/usr/bin/flm"
install -D -m 755 "$bin/flm-tui" "$root/usr/bin/flm-tui"
install -D -m 644 "$repository/assets/systemd/system/flm.service" "$root/usr/lib/systemd/system/flm.service"
install -d "$root/usr/lib/systemd/user"
sed 's|@BINDIR@|/usr/bin|' "$repository/assets/systemd/user/flm.service" >"$root/usr/lib/systemd/user/flm.service"
install -d "$root/usr/share/bash-completion/completions" "$root/usr/share/zsh/vendor-completions" \
  "$root/usr/share/fish/vendor_completions.d" "$root/usr/share/man/man1" "$root/usr/share/doc/flm"
"$bin/flm" completions bash >"$root/usr/share/bash-completion/completions/flm"
"$bin/flm" completions zsh >"$root/usr/share/zsh/vendor-completions/_flm"
"$bin/flm" completions fish >"$root/usr/share/fish/vendor_completions.d/flm.fish"
"$bin/flm" man --output "$root/usr/share/man/man1" >/dev/null
gzip -9n "$root"/usr/share/man/man1/*.1
gzip -9nc "$repository/CHANGELOG.md" >"$root/usr/share/doc/flm/changelog.gz"
cat >"$root/usr/share/doc/flm/copyright" <<'COPYRIGHT'
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: FLM

Files: *
Copyright: the authors of FLM
License: MIT or Apache-2.0

COPYRIGHT
for license in MIT APACHE; do
  { printf 'License text (%s):\n' "$license"; sed 's/^$/./; s/^/ /' "$repository/LICENSE-$license"; printf '\n'; } \
    >>"$root/usr/share/doc/flm/copyright"
done

mkdir "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<CONTROL
Package: flm
Version: $version
Architecture: $architecture
Maintainer: The authors of FLM <flm@localhost>
Depends: libc6 (>= $libc), libgcc-s1
Recommends: ca-certificates
Suggests: nftables | ufw | firewalld | iptables, sudo
Section: net
Priority: optional
Installed-Size: $(du -sk --exclude DEBIAN "$root" | cut -f1)
Description: one guarded endpoint in front of local language models
 FLM finds the language-model engines of a machine (Ollama, vLLM, LM Studio, llama.cpp),
 publishes them behind one OpenAI-compatible endpoint with keys, limits and an audit log,
 and shows everything live in a console for the terminal.
CONTROL
cat >"$root/DEBIAN/postinst" <<'POSTINST'
#!/bin/sh
# A user, a group, and the key of the encrypted database. The service is not started: what it publishes is a decision.
set -e
[ "$1" = configure ] || exit 0
getent group flm >/dev/null || groupadd --system flm
getent passwd flm >/dev/null \
  || useradd --system --gid flm --home-dir /var/lib/flm --no-create-home --shell /usr/sbin/nologin flm
install -d -m 700 /etc/flm
if [ ! -s /etc/flm/db.key ]; then
  (umask 077 && od -An -tx1 -N32 /dev/urandom | tr -d ' \n' >/etc/flm/db.key.new && echo >>/etc/flm/db.key.new)
  mv /etc/flm/db.key.new /etc/flm/db.key
fi
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  # A new version of a service that runs.
  [ -z "$2" ] || systemctl try-restart flm.service
fi
POSTINST
cat >"$root/DEBIAN/prerm" <<'PRERM'
#!/bin/sh
# Running streams are drained before the program goes.
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
  systemctl disable --now flm.service || true
fi
PRERM
cat >"$root/DEBIAN/postrm" <<'POSTRM'
#!/bin/sh
# Databases and keys stay when the package is removed, and go when it is purged.
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
if [ "$1" = purge ]; then
  # Confirmed firewall rules would come back with every start of the machine, and nothing would be left to take them back.
  if [ -e /etc/systemd/system/flm-firewall.service ]; then
    if [ -d /run/systemd/system ]; then systemctl disable --quiet flm-firewall.service || true; fi
    rm -f /etc/systemd/system/flm-firewall.service /etc/systemd/system/sysinit.target.wants/flm-firewall.service
    rm -rf /etc/flm-firewall
    if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
  fi
  rm -rf /var/lib/flm /etc/flm
  if getent passwd flm >/dev/null; then userdel flm || true; fi
  if getent group flm >/dev/null; then groupdel flm || true; fi
fi
POSTRM
chmod 755 "$root"/DEBIAN/p*
(cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
find "$root" -exec touch --no-dereference --date="@$epoch" {} +

mkdir -p "$output"
package=$output/flm_${version}_$architecture.deb
# gzip is the same on every machine; xz would differ with the number of threads.
dpkg-deb --root-owner-group -Zgzip -z$level --build "$root" "$package" >/dev/null
printf '%s\n' "$package"
