"""Where the processor time of a step goes, by `perf record` of head_bench on one thread.

    .venv/bin/python tests/bench/profile_step.py [--classes=16384] [--steps=200] [--folder=FOLDER]

Profiles float32 with KEEP_FLOAT32 and bfloat16 with KEEP_INT16, and prints Markdown: the share of each part of a step. What
head_bench does before and after its steps (drawing weights, measuring the machine, the reference engine) is left out.
"""

import argparse
import collections
import json
import pathlib
import re
import subprocess
import sys
import tempfile

from machine import processor

HEAD_BENCH = pathlib.Path(__file__).resolve().with_name("head_bench")
#: The first whose pattern is found in "object symbol" has it.
PARTS = {
    None: r"ReferenceEngine|bench::|DrawWeights|logf|sincosf|clear_page|memmove",
    "products (oneDNN's generated code)": r"\[JIT\]|libdnnl|memfd",
    "update of weights and momentum": r"UpdateRow",
    "packing weights": r"PackPanels|PackBfloat16Panels",
    "gradients of cosines": r"CosineGradients",
    "norms of weights, conversion to bfloat16": r"InverseNorms|ToBfloat16|RoundToBfloat16|ConvertRows",
    "normaliser: masks, exponentials, sums": r"AccumulateNormalizer",
    "kernel: interrupts, page faults, other processes' doing": r"\[k\]|kernel",
    "rest": r"",
}
CASES = {"FLOAT32": "KEEP_FLOAT32", "BFLOAT16": "KEEP_INT16"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=16384)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--loss", default="SV_AM_SOFTMAX")
    parser.add_argument("--folder", type=pathlib.Path, help="for what perf recorded (default: removed)")
    return parser.parse_args()


def part_of(symbol):
    return next(part for part, pattern in PARTS.items() if re.search(pattern, symbol))


def profile(folder, args, precision):
    """({part: share of the steps}, what head_bench printed)"""
    data = folder / f"{precision}.perf"
    printed = subprocess.run(
        ["perf", "record", "-q", "-e", "cpu-clock", "-F", "999", "-o", data, HEAD_BENCH, f"--classes={args.classes}",
         "--ranks=1", "--threads=1", f"--steps={args.steps}", f"--precision={precision}", f"--cosines={CASES[precision]}",
         f"--loss={args.loss}", "--check_classes=64", "--json"], check=True, capture_output=True, text=True).stdout
    report = subprocess.run(
        ["perf", "report", "-i", data, "--stdio", "--no-children", "-t", "\t", "-F", "sample,comm,dso,symbol"],
        check=True, capture_output=True, text=True).stdout
    samples = collections.Counter()
    for line in report.splitlines():
        if "\t" not in line or line.startswith("#"):
            continue
        count, program, *symbol = (field.strip() for field in line.split("\t"))
        if program.startswith("head_bench"):
            samples[part_of(" ".join(symbol))] += int(count)
    left_out = samples.pop(None, 0)
    total = sum(samples.values())
    print(f"<!-- {precision}: {total} samples of steps, {left_out} of what is left out -->", file=sys.stderr)
    return {part: count / total for part, count in samples.items()}, json.loads(printed[printed.index("{") :])


def main():
    args = arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = args.folder or pathlib.Path(name)
        found = {precision: profile(folder, args, precision) for precision in CASES}
    for precision, (_, printed) in found.items():
        print(f"<!-- {processor()}; C = {args.classes}, {args.loss}, {precision}: step / bound {printed['bound_ratio']:.3f}, "
              f"of processor time {printed['processor_bound_ratio']:.3f} -->")
    print("| | " + " | ".join(f"{precision}, {cosines}" for precision, cosines in CASES.items()) + " |\n|---|---|---|")
    for part in PARTS:
        if part is not None:
            print(f"| {part} | " + " | ".join(f"{100 * shares.get(part, 0):.1f} %" for shares, _ in found.values()) + " |")


if __name__ == "__main__":
    main()
