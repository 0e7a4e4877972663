"""Identification among a million distractors: time, memory, and rank-1 beside brute force.

    identification.py [--worker=BINARY] [--identities=N] [--images=N] [--distractors=N] [--dim=D] [--noise=X]
                      [--precision=BFLOAT16] [--ranks=N] [--threads=N] [--sample=N] [--seed=N]

Distractors are drawn from a normal distribution, images of an identity are its centre and as much noise again. The job runs
twice: with all probes, which is timed, and with those of the first `--sample` identities alone, of which numpy computes the
score with every distractor in float64, from directions rounded as the job rounds them, and so rank-1 in every gallery. Scores
are told apart to 2^-23, so searches whose mate and best distractor are closer than that may fall on either side: they are
counted, and a rank-1 that differs by more than them fails the run. Memory is the most that a rank owned (anonymous pages,
every 10 ms): the files are mapped, and not in it. Prints Markdown. Not part of the test suite.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from all_pairs import ROOT, watch
from machine import processor

STEP = 2.0**-23
BLOCK = 20_000
COUNTS = [10, 100, 1000, 10_000, 100_000, 1_000_000]
GOLDEN = 0x9E3779B97F4A7C15


def mix(x):
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def gallery_order(count, seed):
    """Which distractor joins the gallery first, second, …: worker/data/permutation.h of stream 0."""
    bits = max(6, (count - 1).bit_length())
    low_bits = np.uint64(bits // 2)
    low_mask, high_mask = np.uint64((1 << bits // 2) - 1), np.uint64((1 << (bits - bits // 2)) - 1)
    state = mix(mix(np.array([seed + GOLDEN & 2**64 - 1], np.uint64)) + np.uint64(GOLDEN))
    keys = [mix(state + np.uint64((i + 1) * GOLDEN & 2**64 - 1)) for i in range(8)]
    order, outside = np.arange(count, dtype=np.uint64), np.ones(count, bool)
    while outside.any():
        low, high = order[outside] & low_mask, order[outside] >> low_bits
        for i in range(0, 8, 2):
            high ^= mix(low + keys[i]) & high_mask
            low ^= mix(high + keys[i + 1]) & low_mask
        order[outside] = high << low_bits | low
        outside = order >= count
    return order.astype(np.int64)


def directions(rows, precision):
    """float64, as the job has them: rounded to float32 and, if asked, to bfloat16."""
    rows = rows.astype(np.float64)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    if precision == "BFLOAT16":
        bits = rows.view(np.uint32)
        rows = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)
    return rows.astype(np.float64)


def draw(folder, args):
    """Writes the files; (probes and identities of the sample, distractors)."""
    rng = np.random.default_rng(args.seed)
    identities = np.repeat(np.arange(args.identities), args.images)
    centres = rng.standard_normal((args.identities, args.dim), dtype=np.float32)
    noise = rng.standard_normal((len(identities), args.dim), dtype=np.float32)
    probes = centres[identities] + np.float32(args.noise) * noise
    distractors = rng.standard_normal((args.distractors, args.dim), dtype=np.float32)
    few = args.sample * args.images
    for name, array in {"x": probes, "y": identities, "d": distractors, "x-few": probes[:few], "y-few": identities[:few]}.items():
        np.save(folder / f"{name}.npy", array)
    return probes[:few], identities[:few], distractors


def run(args, folder, suffix):
    """The result of the job, its seconds from launch to end, and the most MiB that each rank owned."""
    job, out = folder / f"job{suffix}.textproto", folder / f"out{suffix}"
    files = f'embeddings: "x{suffix}.npy" identities: "y{suffix}.npy"'
    job.write_text(f'name: "bench" evaluate {{ {files} identification {{ distractors: "d.npy" seed: {args.seed} '
                   f"precision: {args.precision} distractor_counts: {[n for n in COUNTS if n <= args.distractors]} }} }}")
    command = [args.worker, f"--job={job}", f"--output={out}", "--progress=none", f"--threads={args.threads}"]
    if args.ranks > 1:
        command = [ROOT / "tests" / "support" / "mpirun.sh", "-n", str(args.ranks), *command]
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    owned = watch(process, args.worker.resolve())
    assert process.returncode == 0, f"exit code {process.returncode}"
    return json.loads((out / "result.json").read_text()), time.perf_counter() - start, [n / 2**20 for n in owned.values()]


def brute_force(args, probes, identities, distractors, sizes):
    """{gallery size: (rank-1, share of searches that are too close to tell)}"""
    probes = directions(probes, args.precision)
    mates = (identities[:, None] == identities) & ~np.eye(len(probes), dtype=bool)
    scores = probes @ probes.T
    order = gallery_order(args.distractors, args.seed)
    best, found = np.full(len(probes), -2.0), {}
    edges = sorted({*range(0, args.distractors, BLOCK), *sizes})
    for first, end in zip(edges, edges[1:]):
        best = np.maximum(best, (probes @ directions(distractors[order[first:end]], args.precision).T).max(axis=1))
        above = (scores - best[:, None])[mates]
        found[end] = (above > 0).mean(), (np.abs(above) <= 2 * STEP).mean()
    return {size: found[size] for size in sizes}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", default=ROOT / "build" / "release" / "bin" / "shardmax-worker", type=pathlib.Path)
    parser.add_argument("--identities", type=int, default=2000)
    parser.add_argument("--images", type=int, default=2, help="of each identity: each looks for all others")
    parser.add_argument("--distractors", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--noise", type=float, default=1.5, help="deviation within an identity over that between them")
    parser.add_argument("--precision", choices=["BFLOAT16", "FLOAT32"], default="BFLOAT16")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--sample", type=int, default=100, help="identities that numpy scores too")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main():
    args = arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        sample = draw(folder, args)
        result, seconds, owned = run(args, folder, "")
        few = run(args, folder, "-few")[0]
    ranks, checked = ({entry["distractors"]: entry["rate"] for entry in job["rank_1"]} for job in (result, few))
    expected = brute_force(args, *sample, list(checked))
    speed = result["speed"]
    print(f"<!-- {processor()}; {result['probes']} probes of {result['probe_identities']} identities, D = {args.dim}, noise "
          f"{args.noise:g}, seed {args.seed}, {args.ranks} ranks x {args.threads} threads -->")
    print("| precision | pairs | seconds in all | of scoring | pairs/s | share of the GEMM peak | MiB of each rank |")
    print("|---|---|---|---|---|---|---|")
    print(f"| {args.precision} | {result['impostor_pairs']:.3g} | {seconds:.1f} | {speed['seconds']:.1f} | "
          f"{speed['pairs_per_second']:.3g} | {speed['share_of_gemm_peak']:.1%} of {speed['gemm_peak_gflops']:.0f} GFLOP/s | "
          f"{', '.join(f'{mib:.0f}' for mib in owned)} |")
    print(f"\n| distractors | rank-1 | of {few['probes']} probes | numpy | too close to tell |\n|---|---|---|---|---|")
    wrong = 0
    for size, (rate, close) in expected.items():
        print(f"| {size} | {ranks[size]:.2%} | {checked[size]:.2%} | {rate:.2%} | {close:.2%} |")
        wrong += abs(checked[size] - rate) > close + 1e-12
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
