#!/usr/bin/env python3
"""What `cargo deny check` and `cargo audit` say, without either and without a network.

  scripts/check-dependencies.py [--advisory-db DIR]

Reads deny.toml (licences, banned crates, wildcards, sources, duplicates), scripts/advisories.toml and Cargo.lock, and what cargo
knows of the crates that are built for the targets of deny.toml. With --advisory-db, a clone of RustSec's advisory database, each
advisory about a crate of Cargo.lock is looked at too. Says what is wrong and ends with 1; duplicates are told and are no fault.
"""
import pathlib, re, subprocess, sys, tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"


def version(text):
    """A version in the order of semver: a pre-release comes before its release."""
    core, _, rest = text.split("+")[0].partition("-")
    numbers = tuple(int(part) for part in core.split("."))
    release = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in rest.split(".")) if rest else ()
    return (numbers + (0, 0, 0))[:3], not rest, release


def fits(requirement, found):
    """Whether a version meets `>= 1.2.3, < 2`; all of its parts must hold."""
    operators = {">=": lambda a, b: a >= b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b,
                 "<": lambda a, b: a < b, "=": lambda a, b: a == b}
    for part in requirement.split(","):
        operator, wanted = re.fullmatch(r"\s*(>=|<=|>|<|=|\^|~)?\s*(\S+)\s*", part).groups()
        bound = version(wanted)
        if operator in (None, "^", "~"):
            kept = next((at for at, number in enumerate(bound[0]) if number), 2) if operator != "~" else 1
            if found < bound or found[0][:kept + 1] != bound[0][:kept + 1]:
                return False
        elif not operators[operator](found, bound):
            return False
    return True


def allowed(expression, allow):
    """Whether an SPDX expression can be met with these licences."""
    tokens = re.findall(r"[()]|[^\s()/]+|/", expression.replace("/", " OR "))

    def either():
        value = both()
        while tokens[:1] == ["OR"]:
            tokens.pop(0)
            value = both() or value
        return value

    def both():
        value = one()
        while tokens[:1] == ["AND"]:
            tokens.pop(0)
            value = one() and value
        return value

    def one():
        token = tokens.pop(0)
        if token == "(":
            value = either()
            tokens.pop(0)
            return value
        if tokens[:1] == ["WITH"]:
            token = f"{token} WITH {tokens[1]}"
            del tokens[:2]
        return token in allow

    return either()


def advisories(database):
    for entry in tomllib.loads((ROOT / "scripts/advisories.toml").read_text())["advisory"]:
        yield entry["crate"], entry["id"], entry["patched"] + entry.get("unaffected", [])
    for file in sorted(pathlib.Path(database).glob("crates/*/RUSTSEC-*.md")) if database else []:
        found = re.search(r"```toml\n(.*?)```", file.read_text(), re.S)
        entry = tomllib.loads(found.group(1))
        about, safe = entry["advisory"], entry["versions"]
        # Withdrawn ones, and those that only say that nobody maintains a crate, are no fault of the code.
        if not about.get("withdrawn") and about.get("informational") not in ("unmaintained", "notice"):
            yield about["package"], about["id"], safe.get("patched", []) + safe.get("unaffected", [])


def main():
    arguments = sys.argv[1:]
    database = arguments[1] if arguments[:1] == ["--advisory-db"] and len(arguments) == 2 else None
    if arguments and not database:
        sys.exit(__doc__)
    deny = tomllib.loads((ROOT / "deny.toml").read_text())
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    faults, crates = [], {}
    for target in deny["graph"]["targets"]:
        # What is really built: `cargo metadata` also lists crates whose feature nobody turns on.
        command = ["cargo", "tree", "--offline", "--locked", "--target", target, "--edges", "normal,build,dev"]
        command += ["--prefix", "none", "--format", "{p}\t{l}"]
        if deny["graph"].get("all-features"):
            command.append("--all-features")
        told = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
        for name, found, licence in re.findall(r"^(\S+) v(\S+)[^\t\n]*\t([^\n]*?)(?: \(\*\))?$", told, re.M):
            crates[name, found] = licence

    allow = set(deny["licenses"]["allow"])
    for (name, found), licence in crates.items():
        if not licence:
            faults.append(f"{name} {found} names no licence")
        elif not allowed(licence, allow):
            faults.append(f"{name} {found} is licensed as {licence}, which deny.toml does not allow")
    for ban in deny["bans"]["deny"]:
        faults += [f"{name} {found} is banned: {ban['reason']}" for name, found in crates if name == ban["crate"]]
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    for name, wanted in {**manifest["dependencies"], **manifest["dev-dependencies"]}.items():
        wanted = wanted if isinstance(wanted, str) else wanted.get("version", "*")
        if deny["bans"]["wildcards"] == "deny" and "*" in wanted:
            faults.append(f"{name} is wanted in any version")
    for package in locked:
        if package.get("source") not in (None, CRATES_IO):
            faults.append(f"{package['name']} {package['version']} comes from {package['source']}")
        if package.get("source") == CRATES_IO and not package.get("checksum"):
            faults.append(f"{package['name']} {package['version']} has no checksum")
    looked = 0
    for name, advisory, safe in advisories(database):
        for package in locked:
            if package["name"] == name:
                looked += 1
                if not any(fits(requirement, version(package["version"])) for requirement in safe):
                    faults.append(f"{name} {package['version']} has a known fault: {advisory}")

    versions = {}
    for name, found in crates:
        versions.setdefault(name, set()).add(found)
    twice = sorted(name for name, found in versions.items() if len(found) > 1)
    for name in twice:
        print(f"note: {name} is there in several versions: {', '.join(sorted(versions[name]))}")
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if faults:
        print("hint: update or replace the crate (cargo update -p NAME), or change deny.toml with a reason", file=sys.stderr)
        sys.exit(1)
    print(f"dependencies are fine: {len(crates)} crates, {len(allow)} licences allowed, {looked} known faults looked for")


if __name__ == "__main__":
    main()
