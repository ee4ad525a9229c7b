#!/usr/bin/env bash
# Line coverage of the library by `cargo test`, with a floor.
#
#   scripts/ci-coverage.sh [--floor PERCENT] [--output FILE]     80; the figures of each room as JSON
#
# Counts what the tests' own processes and every `flm` and `flm-tui` that they start run, so that commands and daemon count too.
# Only FLM is built anew, with counters (`-C instrument-coverage`); its dependencies are those of the usual target folder.
# Lines of tests within src/ and of src/bin are left out. A test that fails is told, and is no reason to fail here: that is .ci/run's.
# Needs llvm-profdata and llvm-cov of rustc's LLVM: `rustup component add llvm-tools`, or Debian's llvm-VERSION.
set -euo pipefail
cd "$(dirname "$0")/.."

floor=80
output=
while [ $# -gt 0 ]; do
  case $1 in
    --floor) floor=${2:?--floor needs a number}; shift ;;
    --output) output=${2:?--output needs a file}; shift ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 1 ;;
  esac
  shift
done

# The newest tool that reads what this rustc writes: of the same major version.
major=$(rustc -vV | sed -nE 's/^LLVM version: ([0-9]+).*/\1/p')
host=$(rustc -vV | sed -nE 's/^host: //p')
tool() {
  local place
  for place in "$(rustc --print sysroot)/lib/rustlib/$host/bin/$1" "$(command -v "$1-$major" || true)" "/usr/lib/llvm-$major/bin/$1"; do
    if [ -x "$place" ]; then echo "$place"; return; fi
  done
  printf 'error: no %s of LLVM %s\nhint: rustup component add llvm-tools, or apt-get install llvm-%s\n' "$1" "$major" "$major" >&2
  exit 1
}
profdata=$(tool llvm-profdata)
cov=$(tool llvm-cov)

# Beside what is built with it: a path of its own each time would have cargo build all of FLM anew.
work=$(realpath "${CARGO_TARGET_DIR:-target}")/coverage
rm -rf "$work/profiles"
mkdir -p "$work/profiles"
trap 'rm -rf "$work/profiles" "$work/all.profdata"' EXIT
# Tests empty the environment of what they start, so where counters go is built in; %m has processes of one program share files.
cat >"$work/place.c" <<PLACE
void __llvm_profile_set_filename(const char *);
__attribute__((constructor)) static void place(void) { __llvm_profile_set_filename("$work/profiles/%8m.profraw"); }
PLACE
cc -c -o "$work/place.o" "$work/place.c"
# Not sh: dash drops CARGO_BIN_EXE_flm-tui, which is no name of a variable to it.
cat >"$work/rustc" <<WRAPPER
#!/usr/bin/env bash
exec "\$@" -C instrument-coverage -C debuginfo=0 -C link-arg=$work/place.o
WRAPPER
chmod +x "$work/rustc"
export RUSTC_WORKSPACE_WRAPPER=$work/rustc CARGO_TERM_COLOR=never INSTA_UPDATE=no
unset LLVM_PROFILE_FILE

cargo test --locked --no-run --message-format=json-render-diagnostics >"$work/built.json"
cargo test --locked --no-fail-fast >"$work/tests.log" 2>&1 || grep -E '^test .* FAILED$' "$work/tests.log" || tail -n 20 "$work/tests.log"
"$profdata" merge --sparse --failure-mode=all -o "$work/all.profdata" "$work"/profiles/*.profraw
mapfile -t programs < <(python3 - "$work/built.json" <<'PYTHON'
import json, sys
for line in open(sys.argv[1]):
    program = json.loads(line).get("executable")
    if program:
        print(program)
PYTHON
)
objects=()
for program in "${programs[@]}"; do objects+=(--object "$program"); done
"$cov" export --format=lcov --instr-profile "$work/all.profdata" --sources src "${objects[@]}" >"$work/lines.lcov" 2>"$work/cov.log" ||
  { cat "$work/cov.log" >&2; exit 1; }

python3 - "$work/lines.lcov" "$floor" "$output" <<'PYTHON'
import collections, json, pathlib, re, sys

lcov, floor, output = sys.argv[1], float(sys.argv[2]), sys.argv[3]
root = pathlib.Path.cwd() / "src"
rooms = collections.defaultdict(lambda: [0, 0])
for record in open(lcov).read().split("end_of_record"):
    found = re.search(r"^SF:(.*)$", record, re.M)
    path = pathlib.Path(found.group(1)) if found else None
    if not path or not path.is_relative_to(root) or path.name in ("tests.rs", "properties.rs", "file_tests.rs"):
        continue
    room = path.relative_to(root).parts[0]
    if room in ("bin", "lib.rs"):
        continue
    # Tests stand at the end of a file.
    text = path.read_text()
    tests = re.search(r"^#\[cfg\(test\)\]\n(?:#.*\n)*(?:pub(?:\(.*\))? )?mod \w+ \{$", text, re.M)
    end = text[: tests.start()].count("\n") if tests else text.count("\n")
    for line, count in re.findall(r"^DA:(\d+),(\d+)", record, re.M):
        if int(line) <= end:
            rooms[room][0] += int(count) > 0
            rooms[room][1] += 1
run, all_lines = (sum(room[at] for room in rooms.values()) for at in (0, 1))
if all_lines == 0:
    sys.exit("error: no line was counted")
percent = lambda room: round(100 * room[0] / room[1], 1)
for room, counts in sorted(rooms.items()):
    print(f"{room:12} {percent(counts):5.1f} %  {counts[0]} of {counts[1]} lines")
print(f"{'library':12} {percent([run, all_lines]):5.1f} %  {run} of {all_lines} lines; floor {floor:.0f} %")
if output:
    told = {"lines": all_lines, "run": run, "percent": percent([run, all_lines]), "rooms": {name: percent(room) for name, room in sorted(rooms.items())}}
    pathlib.Path(output).write_text(json.dumps(told, indent=2) + "\n")
sys.exit(100 * run / all_lines < floor)
PYTHON
