#!/usr/bin/env python3
"""Tells whether FLM became dearer: holds the ratios of two runs of scripts/bench.sh --json against each other, and nothing else.

  scripts/bench-regression.py [--tolerance 0.1] [BASE.json] NOW.json

Each ratio is FLM's cost as times of a bare hyper pass-through in the same run, the median of its rounds, so that the machine drops out.
BASE is docs/benchmarks.json unless named. A ratio may be above its base by the tolerance, a tenth unless told otherwise: two runs of one
program on a machine with other work differ by about that. Ends with 1 when a ratio is above it.
"""
import argparse, json, pathlib, sys

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
        is_worse = is_now > was * (1 + options.tolerance)
        worse += is_worse
        print(f"{name:18} beside {shape:14} {was:6.3f} -> {is_now:6.3f}{'  WORSE' if is_worse else ''}")
    if worse:
        sys.exit(f"error: {worse} of {len(pairs)} ratios are more than {options.tolerance:.0%} above {options.base}")


if __name__ == "__main__":
    main()
