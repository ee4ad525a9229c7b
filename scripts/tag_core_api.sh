#!/usr/bin/env bash
# Tags the state of the library's public API: core-api-vX.Y.Z, as docs/core-api.md names it.
#
#   scripts/tag_core_api.sh [--dry-run] [--push REMOTE]
#
# Refuses unless the working tree is clean, versions agree, the recorded surface (docs/core-api.txt) is that of the sources,
# and no such tag exists. The tag is annotated with the entry of docs/core-api.md, and signed where git is set up for it.
set -euo pipefail
cd "$(dirname "$0")/.."

dry_run=no
remote=
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) dry_run=yes ;;
    --push)
      remote=${2:-}
      [ -n "$remote" ] || { echo 'error: --push needs the name of a remote' >&2; exit 1; }
      shift
      ;;
    *)
      sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
      exit 1
      ;;
  esac
  shift
done
fail() {
  printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
  exit 1
}

[ -z "$(git status --porcelain)" ] || fail 'the working tree has changes' 'commit or stash them: a tag names a commit'
scripts/check-versions.sh >&2
scripts/core-api.py --check >&2
version=$(sed -nE 's/^Core API version: `([^`]+)`\.?$/\1/p' docs/core-api.md | head -n 1)
tag=core-api-v$version
if git rev-parse --quiet --verify "refs/tags/$tag" >/dev/null; then
  fail "the tag $tag exists" 'raise the version in docs/core-api.md and say what changed'
fi
# The entry of this version: from its heading to the next.
entry=$(awk -v heading="## $version" 'index($0, heading) == 1 { on = 1; next } /^## / { on = 0 } on' docs/core-api.md)
[ -n "${entry//[[:space:]]/}" ] || fail "docs/core-api.md says nothing about $version" 'say what changed for callers'

if [ "$dry_run" = yes ]; then
  printf 'would tag %s as %s:\n%s\n' "$(git rev-parse --short HEAD)" "$tag" "$entry"
  exit 0
fi
kind=--annotate
if [ -n "$(git config --get user.signingkey || true)" ]; then kind=--sign; fi
git tag "$kind" --message "Core API $version" --message "$entry" "$tag"
printf 'tagged %s as %s\n' "$(git rev-parse --short HEAD)" "$tag"
if [ -n "$remote" ]; then git push "$remote" "refs/tags/$tag"; fi
