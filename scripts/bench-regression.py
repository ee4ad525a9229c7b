#!/usr/bin/env python3
"""Tells whether FLM became dearer: holds the ratios of two runs of scripts/bench.sh --json against each other, and nothing else.

  scripts/bench-regression.py [--tolerance 0.1] [BASE.json] NOW.json

Each ratio is FLM's cost as times of a bare hyper pass-through in the same run, the median of its rounds, so that the machine drops out.
BASE is docs/benchmarks.json unless named. What is judged, beside the pass-through of FLM's own shape, may be above its base by the
tolerance, a tenth unless told otherwise: two runs of one program on a machine busy with other work differed by 6 % at most. The rest is told:
floods of chunks differed by 70 %, since they show how the machine's cores are shared. Ends with 1 when something is dearer.
"""
import argparse, json, pathlib, sys

SHAPE = "per-core"
JUDGED = {"request", "request_single", "chunk", "p50", "first_token", "held", "held_tls"}
ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    """Compares and tells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tolerance", type=float, default=0.1)
    parser.add_argument("base", nargs="?", default=ROOT / "docs/benchmarks.json", type=pathlib.Path)
    parser.add_argument("now", type=pathlib.Path)
    options = parser.parse_args()
    base, now = (json.loads(file.read_text())["ratios"] for file in (options.base, options.now))
    pairs = [(shape, name, base[shape][name], now[shape][name])
             for shape in base for name in base[shape] if name in now.get(shape, {})]
    if not pairs:
        sys.exit(f"error: {options.base} and {options.now} have no ratio in common")
    worse = 0
    for shape, name, was, is_now in pairs:
        is_judged = shape == SHAPE and name in JUDGED
        is_worse = is_judged and is_now > was * (1 + options.tolerance)
        worse += is_worse
        verdict = "DEARER" if is_worse else "" if is_judged else "(told only)"
        print(f"{name:18} beside {shape:14} {was:6.3f} -> {is_now:6.3f}  {verdict}".rstrip())
    if worse:
        sys.exit(f"error: {worse} ratios are more than {options.tolerance:.0%} above {options.base}")


if __name__ == "__main__":
    main()
