"""How fast all_pairs scores, beside what matrix products reach on this machine in the same run.

    all_pairs.py [--worker=BINARY] [--rows=N] [--dim=D] [--precision=BFLOAT16] [--ranks=N] [--runs=N]

Each run is a job of its own on embeddings of that many rows in a tenth as many identities, and every pair of rows. Prints
pairs a second and the share of the GEMM peak of each run, and their median. On a machine that others use the share of a run may
be off either way, as the peak is measured for milliseconds before and after it: make more runs.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]


def write_embeddings(folder, rows, dim):
    rng = np.random.default_rng(1)
    identities = rng.integers(0, max(rows // 10, 2), rows)
    centres = rng.standard_normal((identities.max() + 1, dim), dtype=np.float32)
    np.save(folder / "x.npy", centres[identities] + rng.standard_normal((rows, dim), dtype=np.float32))
    np.save(folder / "y.npy", identities)


def run(args, folder, number):
    """The `speed` of one job."""
    job, out = folder / "job.textproto", folder / f"out-{number}"
    files = 'embeddings: "x.npy" identities: "y.npy"'
    job.write_text(f'name: "bench" evaluate {{ {files} all_pairs {{ precision: {args.precision} }} }}')
    command = [args.worker, f"--job={job}", f"--output={out}", "--progress=none"]
    if args.ranks > 1:
        command = [ROOT / "tests" / "support" / "mpirun.sh", "-n", str(args.ranks), *command]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return json.loads((out / "result.json").read_text())["speed"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--worker", default=ROOT / "build" / "release" / "bin" / "shardmax-worker", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--precision", choices=["BFLOAT16", "FLOAT32"], default="BFLOAT16")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_embeddings(folder, args.rows, args.dim)
        speeds = [run(args, folder, number) for number in range(args.runs)]
    for speed in speeds:
        print(f"{speed['pairs_per_second']:.3g} pairs/s, {speed['gemm_gflops']:.0f} of "
              f"{speed['gemm_peak_gflops']:.0f} GFLOP/s: {speed['share_of_gemm_peak']:.1%}")
    median = statistics.median(speed["share_of_gemm_peak"] for speed in speeds)
    print(f"median of {args.runs} runs: {median:.1%} of the GEMM peak "
          f"({args.rows} rows, D = {args.dim}, {args.precision}, {args.ranks} ranks)")


if __name__ == "__main__":
    main()
