#!/usr/bin/env bash
# Makes the artefacts of a release from programs that are already built: an archive, the Debian package, their SHA-256
# list, and a GPG signature over the list. Publishes nothing.
#
#   scripts/release.sh --bin DIR --key KEY [--output DIR] [--fast]
#
#   --bin DIR       where flm and flm-tui are, such as target/release
#   --key KEY       the signing key, as gpg --local-user takes it (a fingerprint)
#   --output DIR    where everything goes    [default: target/release-artefacts]
#   --fast          compress little, for tests
#
# How whoever downloads them checks them: docs/installation.md.
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
bin=
key=
output=$repository/target/release-artefacts
fast=
level=-9

fail() {
  printf 'error: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
  exit 1
}
while [ $# -gt 0 ]; do
  case $1 in
    --bin) bin=${2:?"--bin needs a folder"}; shift ;;
    --key) key=${2:?"--key needs a key"}; shift ;;
    --output) output=${2:?"--output needs a folder"}; shift ;;
    --fast) fast=--fast level=-1 ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d'; exit 0 ;;
    *) fail "unknown option $1" "see $0 --help" ;;
  esac
  shift
done
[ -n "$bin" ] || fail "--bin is missing" "build first (cargo build --release), then: $0 --bin target/release --key KEY"
[ -n "$key" ] || fail "--key is missing" "a release without a signature is none; see: gpg --list-secret-keys"
command -v gpg >/dev/null || fail "gpg is missing" "apt-get install gnupg"
gpg --batch --list-secret-keys "$key" >/dev/null 2>&1 || fail "gpg has no secret key $key" "see: gpg --list-secret-keys"

# The version that the program tells is that of the sources.
version=$("$bin/flm" version --format json | sed -n 's/.*"data":.*"version":"\([^"]*\)".*/\1/p')
stated=$(sed -n 's/^version = "\(.*\)"/\1/p' "$repository/Cargo.toml" | head -n 1)
[ "$version" = "$stated" ] || fail "$bin/flm is $version, and Cargo.toml says $stated" "build again: cargo build --release"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$repository" log -1 --format=%ct 2>/dev/null || echo 1767225600)}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$output"
package=$("$repository/scripts/build-deb.sh" --bin "$bin" --output "$output" $fast)
architecture=$(case $package in *_amd64.deb) echo x86_64 ;; *) echo aarch64 ;; esac)

name=flm-$version-linux-$architecture
umask 022
install -D -m 755 -t "$work/$name/bin" "$bin/flm" "$bin/flm-tui"
install -D -m 755 -t "$work/$name/scripts" "$repository/scripts/install.sh" "$repository/scripts/uninstall.sh"
mkdir -p "$work/$name/assets"
cp -R "$repository/assets/systemd" "$work/$name/assets/systemd"
install -m 644 -t "$work/$name" "$repository"/LICENSE-* "$repository/CHANGELOG.md"
install -D -m 644 -t "$work/$name/docs" "$repository/docs/installation.md" "$repository/docs/deployment.md"
archive=$output/$name.tar.gz
tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -C "$work" -c "$name" | gzip "$level" -n >"$archive"

cd "$output"
# Everything that is published, and only names: the list is checked in the folder of the downloads.
sha256sum "$(basename "$archive")" "$(basename "$package")" >SHA256SUMS
rm -f SHA256SUMS.asc
gpg --batch --yes --local-user "$key" --armor --detach-sign --output SHA256SUMS.asc SHA256SUMS
gpg --batch --verify SHA256SUMS.asc SHA256SUMS 2>/dev/null || fail "the signature that was just made does not verify"
sha256sum --check --quiet SHA256SUMS
printf '%s\n' "$archive" "$package" "$output/SHA256SUMS" "$output/SHA256SUMS.asc"
