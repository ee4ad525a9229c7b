#!/usr/bin/env bash
# Checks that every place that names a version names the same one:
#
#   Cargo.toml, Cargo.lock, CHANGELOG.md, docs/core-api.md, docs/schemas, and the version of the admin API's shapes in
#   src/control/protocol.rs and src/cli/output.rs.
#
#   scripts/check-versions.sh [--released]     --released: the CHANGELOG must have a dated heading for this version
set -euo pipefail
cd "$(dirname "$0")/.."

faults=0
fault() {
  printf 'error: %s\n' "$1" >&2
  printf 'hint: %s\n' "$2" >&2
  faults=$((faults + 1))
}
# The first match of a sed expression in a file; nothing when there is none.
first() { [ ! -f "$2" ] || sed -nE "s/$1/\\1/p" "$2" | head -n 1; }

version=$(first '^version = "([^"]+)"$' Cargo.toml)
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] ||
  fault "Cargo.toml names no version of the form MAJOR.MINOR.PATCH: '$version'" "see https://semver.org"

locked=$(awk '/^name = "flm"$/ { getline; gsub(/version = |"/, ""); print; exit }' Cargo.lock)
[ "$locked" = "$version" ] || fault "Cargo.lock has flm $locked, Cargo.toml $version" "run: cargo metadata --format-version 1 >/dev/null"

# Either the version is still to come (Unreleased on top), or its heading is there with a date.
if ! grep -qE '^## \[Unreleased\]$' CHANGELOG.md; then
  fault "CHANGELOG.md has no heading '## [Unreleased]'" "add it on top: what comes next is written there"
fi
newest=$(first '^## \[([0-9][^]]*)\] - [0-9]{4}-[0-9]{2}-[0-9]{2}$' CHANGELOG.md)
if [ "${1:-}" = --released ] && [ "$newest" != "$version" ]; then
  fault "CHANGELOG.md has no heading '## [$version] - YYYY-MM-DD' on top of the released ones" "move what is under Unreleased there"
fi
if [ -n "$newest" ] && [ "$(printf '%s\n%s\n' "$newest" "$version" | sort -V | tail -n 1)" != "$version" ]; then
  fault "CHANGELOG.md has released $newest, and Cargo.toml is still at $version" "raise the version in Cargo.toml"
fi
wrong=$(grep -nE '^## ' CHANGELOG.md | grep -vE '^[0-9]+:## \[(Unreleased|[0-9]+\.[0-9]+\.[0-9]+[^]]*\] - [0-9]{4}-[0-9]{2}-[0-9]{2})\]?$' || true)
[ -z "$wrong" ] || fault "CHANGELOG.md has a heading of another form: $wrong" "write '## [1.2.3] - 2026-01-31'"

# The shapes of commands and of the admin API are one and the same.
shape=$(first '^pub const SHAPE: \&str = "([^"]+)";$' src/control/protocol.rs)
printed=$(first '^const SHAPE: \&str = "([^"]+)";$' src/cli/output.rs)
[ -n "$shape" ] || fault "src/control/protocol.rs names no SHAPE" "the admin API's version is the constant SHAPE"
[ "$shape" = "$printed" ] || fault "commands print shape '$printed', the admin API answers '$shape'" "both are one contract (SPEC 2)"
published=$(first '^ *"const": "([0-9]+\.[0-9]+)".*$' docs/schemas/commands.json)
[ "$published" = "$shape" ] ||
  fault "docs/schemas/commands.json publishes shape '$published', commands print '$shape'" "run: scripts/update-schemas.sh"

core=$(first '^Core API version: `([^`]+)`\.?$' docs/core-api.md)
[[ $core =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || fault "docs/core-api.md names no version of the core API" "write: Core API version: \`1.0.0\`."
logged=$(first '^## ([0-9]+\.[0-9]+\.[0-9]+)( .*)?$' docs/core-api.md)
[ "$logged" = "$core" ] || fault "docs/core-api.md is at $core, and its newest entry at '$logged'" "add an entry for $core on top"

minimum=$(first '^rust-version = "([^"]+)"$' Cargo.toml)
toolchain=$(first '^channel = "([^"]+)"$' rust-toolchain.toml)
case $toolchain in
  "$minimum" | "$minimum".*) ;;
  *) fault "rust-toolchain.toml has $toolchain, Cargo.toml promises $minimum" "what is promised is what is tested" ;;
esac

[ "$faults" = 0 ] || exit 1
printf 'versions agree: flm %s, shape %s, core API %s, Rust %s\n' "$version" "$shape" "$core" "$minimum"
