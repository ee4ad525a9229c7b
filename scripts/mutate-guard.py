#!/usr/bin/env python3
"""Mutation testing of the guard: how many small faults do its unit tests notice?

  scripts/mutate-guard.py [--sample N] [--seed S] [--jobs J] [--file GLOB] [--names FILE]
                            [--output DIR] [--floor PERCENT]

Building all of FLM for each mutant would take days, so `guard` is copied into a crate of its own, beside one with `types`, the
only room that it needs; cargo-mutants (`cargo install --locked cargo-mutants`) then changes one thing at a time there and runs the
guard's own tests. Without --sample all mutants are tried; with it, N of them, drawn by the seed; --names tries those that a file
names, such as missed.txt of a run before. Prints the score, the share of viable mutants that were caught (a test that never ends
counts as caught), and lists the survivors; ends with 1 when the score is below the floor (85). Survivors are explained in
docs/audit/tests.md. A mutant takes about five seconds of processor time.
"""
import argparse, fnmatch, json, os, pathlib, random, re, shutil, subprocess, sys, tempfile, tomllib

# Tests of a mutant take four seconds of processor time, unless it loops; a busy machine makes that any number of minutes. What fills
# memory ends, too.
RUNNER = '''
[target.'cfg(unix)']
runner = ["sh", "-c", 'ulimit -t 40; ulimit -v 4194304; exec "$@"', "sh"]
'''
# Where most of the time of the tests goes; whole again with some optimisation, which costs nothing in a build of one change.
OPTIMISED = '''
[profile.dev.package.flm_guard]
opt-level = 1
[profile.dev.package.prefix-trie]
opt-level = 1
'''
ROOT = pathlib.Path(__file__).resolve().parent.parent


def dependencies(folder, extra=""):
    """The lines of Cargo.toml for the crates that the sources below a folder name."""
    wanted = tomllib.loads((ROOT / "Cargo.toml").read_text())
    wanted = {**wanted["dev-dependencies"], **wanted["dependencies"]}
    text = extra + "\n".join(file.read_text() for file in folder.rglob("*.rs"))
    lines = []
    for name, value in wanted.items():
        if re.search(rf"\b{name.replace('-', '_')}::", text):
            value = {"version": value} if isinstance(value, str) else value
            value.pop("optional", None)
            fields = ", ".join(f"{key} = {json.dumps(field)}" for key, field in value.items())
            lines.append(f"{name} = {{ {fields} }}")
    return "\n".join(lines)


def lay_out(place):
    """Two crates: `types` once, and `guard`, whose paths stay what they are."""
    manifest = (ROOT / "Cargo.toml").read_text()
    profiles = manifest[manifest.index("[profile.dev]"):manifest.index("[profile.release]")]
    (place / "Cargo.toml").write_text(
        f'[workspace]\nmembers = ["types", "guard"]\nresolver = "3"\n\n{profiles.replace("line-tables-only", "none")}{OPTIMISED}'
    )
    (place / ".cargo").mkdir()
    (place / ".cargo/config.toml").write_text(RUNNER)
    shutil.copy(ROOT / "Cargo.lock", place / "Cargo.lock")
    shutil.copy(ROOT / "rust-toolchain.toml", place / "rust-toolchain.toml")
    for room, lib in [("types", "pub mod types;\n"), ("guard", "pub use flm_types::types;\npub mod guard;\n")]:
        crate = place / room
        shutil.copytree(ROOT / "src" / room, crate / "src" / room)
        (crate / "src/lib.rs").write_text(lib)
        more = '\nflm_types = { path = "../types" }' if room == "guard" else ""
        (crate / "Cargo.toml").write_text(
            f'[package]\nname = "flm_{room}"\nversion = "0.0.0"\nedition = "2024"\n\n[lib]\ndoctest = false\n\n'
            f"[dependencies]\n{dependencies(ROOT / 'src' / room)}{more}\n"
        )
    shutil.copytree(ROOT / "tests/fixtures/guard", place / "guard/tests/fixtures/guard")


def mutants(place, arguments, environment):
    command = ["cargo", "mutants", "--dir", str(place), "--package", "flm_guard", *arguments]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--sample", type=int, help="how many mutants; all by default")
    options.add_argument("--seed", type=int, default=1, help="which ones")
    options.add_argument("--jobs", type=int, default=1, help="how many at once")
    options.add_argument("--file", default="*", help="only of files such as '*/gcra.rs'")
    options.add_argument("--names", help="only those that this file names, one a line")
    options.add_argument("--output", help="where cargo-mutants writes what it saw; kept")
    options.add_argument("--floor", type=float, default=85.0, help="least score, percent")
    options = options.parse_args()

    with tempfile.TemporaryDirectory(prefix="flm-mutants-") as place:
        place = pathlib.Path(place)
        lay_out(place)
        # Fewer random cases: a mutant that only one case in hundreds notices counts as missed.
        environment = {**os.environ, "CARGO_TERM_COLOR": "never", "PROPTEST_CASES": "32"}
        environment["RUST_BACKTRACE"] = "0"
        environment.pop("CARGO_TARGET_DIR", None)
        listed = mutants(place, ["--list", "--json"], environment)
        if listed.returncode != 0:
            sys.exit("error: cargo-mutants does not run\nhint: cargo install --locked cargo-mutants")
        names = [mutant["name"] for mutant in json.loads(listed.stdout) if fnmatch.fnmatch(mutant["file"], options.file)]
        if options.names:
            wanted = set(pathlib.Path(options.names).read_text().splitlines())
            names = [name for name in names if name in wanted]
        chosen = sorted(random.Random(options.seed).sample(names, min(options.sample or len(names), len(names))))
        print(f"{len(names)} mutants, of which {len(chosen)} are tried", flush=True)
        output = pathlib.Path(options.output or place / "told")
        output.mkdir(parents=True, exist_ok=True)
        arguments = ["--output", str(output), "--jobs", str(options.jobs), "--timeout", "180", "--no-times", "--colors", "never"]
        # A constant that never ends is an error of rustc's, unless lints are capped.
        arguments += ["--cap-lints=false", "--shuffle"]
        for name in chosen:
            arguments += ["--re", f"^{re.escape(name)}$"]
        # How long comparisons take, a machine with other work cannot tell: such a test would seem to catch what it does not.
        arguments += ["--", "--lib", "--", "--skip", "key_timing"]
        ran = mutants(place, arguments, environment)
        told = json.loads((output / "mutants.out/outcomes.json").read_text())
    if ran.returncode == 4:
        sys.exit("error: the guard's tests fail without any mutant\n" + ran.stdout[-2000:])

    caught, missed = told["caught"] + told["timeout"], told["missed"]
    survivors = (output / "mutants.out/missed.txt").read_text() if options.output else ran.stdout
    print(survivors, end="")
    if caught + missed == 0:
        sys.exit("error: no viable mutant was tried: does the guard build by itself?\n" + ran.stdout[-2000:])
    score = 100 * caught / (caught + missed)
    print(f"caught {told['caught']}, timed out {told['timeout']}, missed {missed}, did not build {told['unviable']}")
    print(f"score {score:.1f} %, floor {options.floor} %")
    sys.exit(score < options.floor)


if __name__ == "__main__":
    main()
