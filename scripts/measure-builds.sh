#!/usr/bin/env bash
# How long `cargo test` of one room takes after a change of it (issue 8: 40 s at most; docs/testing.md).
#
#   scripts/measure-builds.sh [ROOM...]
#
# For each room (guard, proxy and tui without any): puts one line more at the head of its mod.rs, so that every line of it has another
# number, and builds and runs the unit tests of that room, as a developer does; then takes the line out again and does the same. A room
# with a suite of its own in tests/ has that built and run too, from the same change; what its tests take to run is told apart.
# Seconds by the clock, and of processor time: where other programs keep the cores busy, only the second say something.
set -euo pipefail
cd "$(dirname "$0")/.."
rooms=("${@:-guard}")
[ $# -gt 0 ] || rooms=(guard proxy tui)
TIMEFORMAT='%R s, of processor time %U + %S s'
trap 'for room in "${rooms[@]}"; do sed -i "/^\/\/ measured$/d" "src/$room/mod.rs"; done' EXIT

told() { # what, command
    echo "$1: $( { time "${@:2}" >/dev/null 2>&1; } 2>&1 )"
}

cargo test --locked --no-run --lib >/dev/null 2>&1
for room in "${rooms[@]}"; do
    for change in in out; do
        case "$change" in
            in) sed -i '1i // measured' "src/$room/mod.rs" ;;
            out) sed -i '/^\/\/ measured$/d' "src/$room/mod.rs" ;;
        esac
        told "$room, line $change, unit tests built and run" cargo test --locked --lib "$room::"
        suite=$room
        [ "$room" != tui ] || suite=console
        if [ -d "tests/$suite" ]; then
            told "$room, line $change, tests/$suite built" cargo test --locked --no-run --test "$suite"
            told "$room, line $change, tests/$suite run" cargo test --locked --test "$suite"
        fi
    done
done
