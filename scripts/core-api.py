#!/usr/bin/env python3
"""Lists the library's core API: what another program may build on, one line for each public item.

    scripts/core-api.py            prints it
    scripts/core-api.py --write    writes docs/core-api.txt
    scripts/core-api.py --check    says what differs from docs/core-api.txt (exit code 1 when something does)

The core API are the rooms that are values and pure functions: types, wire, guard and config. It is read from the sources,
because a list made by the compiler needs a nightly one. Tests are left out. A changed line is a changed API: docs/core-api.md
says what that means for its version.
"""

import difflib
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROOMS = ["types", "wire", "guard", "config"]
RECORD = ROOT / "docs" / "core-api.txt"
ITEM = re.compile(
    r"^(?P<indent> *)pub (?P<what>(?:const )?(?:async )?(?:fn|struct|enum|trait|type|const|static|mod) \w+[^\n]*)", re.M
)


def without_tests(text):
    """Cuts the inline test module, which is last in every file of this repository."""
    at = text.find("#[cfg(test)]\nmod tests {")
    return text if at < 0 else text[:at]


def signature(text, match):
    """The item up to its body, on one line."""
    rest = text[match.start("what"):]
    depth = 0
    for at, character in enumerate(rest):
        if character in "([<":
            depth += 1
        elif character in ")]" or (character == ">" and rest[at - 1] not in "-="):
            depth -= 1
        elif depth <= 0 and character in "{;" or (depth <= 0 and character == "=" and rest.startswith("const")):
            rest = rest[:at]
            break
    return re.sub(r",? *([)>])", r"\1", re.sub(r"\s+", " ", rest)).strip()


def items(path):
    text = without_tests(path.read_text())
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    module = "::".join(part for part in parts if part != "mod")
    owner = ""
    found = []
    for line in re.finditer(r"^(?:impl(?:<[^\n]*?>)? (?P<owner>[^\n{]+?) (?:where|\{)|\})", text, re.M):
        found.append((line.start(), "owner", line.group("owner") or ""))
    for match in ITEM.finditer(text):
        found.append((match.start(), "item", match))
    for _, kind, value in sorted(found, key=lambda entry: entry[0]):
        if kind == "owner":
            owner = value
        elif value.group("indent") and owner:
            yield f"{module}::{owner}: {signature(text, value)}"
        elif not value.group("indent"):
            yield f"{module}: {signature(text, value)}"


def surface():
    lines = []
    for room in ROOMS:
        for path in sorted((ROOT / "src" / room).rglob("*.rs")):
            if path.name != "tests.rs":
                lines.extend(items(path))
    return sorted(set(lines))


def main(arguments):
    lines = surface()
    if len(lines) < 300:
        print(f"error: only {len(lines)} items were found: this script no longer reads the sources right", file=sys.stderr)
        return 2
    text = "\n".join(lines) + "\n"
    if arguments == ["--write"]:
        RECORD.write_text(text)
    elif arguments == ["--check"]:
        recorded = RECORD.read_text() if RECORD.exists() else ""
        difference = list(difflib.unified_diff(recorded.splitlines(), lines, "docs/core-api.txt", "sources", lineterm="", n=0))
        if difference:
            print("\n".join(difference), file=sys.stderr)
            print("error: the core API is not the one that is recorded", file=sys.stderr)
            print("hint: say in docs/core-api.md what changed, then run: scripts/core-api.py --write", file=sys.stderr)
            return 1
    elif not arguments:
        sys.stdout.write(text)
    else:
        print(__doc__, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
