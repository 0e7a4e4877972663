"""How fast all_pairs scores, beside what matrix products reach on this machine in the same run.

    all_pairs.py [--worker=BINARY] [--rows=N…] [--dim=D] [--precision=BFLOAT16] [--ranks=N] [--runs=N]

Each run is a job of its own on embeddings of that many rows in a tenth as many identities, and every pair of rows. Prints
pairs a second, the share of the GEMM peak and the memory of each run, and for each number of rows a line of a table with
the medians. Memory is the most that a rank owns (anonymous pages, every 10 ms): the input is mapped, and
not in it. On a machine that others use the share of a run may
be off either way, as the peak is measured for milliseconds before and after it: make more runs.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]


def write_embeddings(folder, rows, dim):
    rng = np.random.default_rng(1)
    identities = rng.integers(0, max(rows // 10, 2), rows)
    centres = rng.standard_normal((identities.max() + 1, dim), dtype=np.float32)
    np.save(folder / "x.npy", centres[identities] + rng.standard_normal((rows, dim), dtype=np.float32))
    np.save(folder / "y.npy", identities)


def owned_bytes(pid):
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def workers_below(pid, program):
    """The processes of `program` among `pid` and what it has started."""
    try:
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        mine = [pid] if os.path.samefile(f"/proc/{pid}/exe", program) else []
    except OSError:
        return []
    return mine + [worker for child in children for worker in workers_below(int(child), program)]


def watch(process, program):
    """The most that each rank owned until the job ended, by its process."""
    most = {}
    while process.poll() is None:
        for pid in workers_below(process.pid, program):
            most[pid] = max(most.get(pid, 0), owned_bytes(pid))
        time.sleep(0.01)
    return most


def run(args, folder, number):
    """The `speed` of one job."""
    job, out = folder / "job.textproto", folder / f"out-{number}"
    files = 'embeddings: "x.npy" identities: "y.npy"'
    job.write_text(f'name: "bench" evaluate {{ {files} all_pairs {{ precision: {args.precision} }} }}')
    command = [args.worker, f"--job={job}", f"--output={out}", "--progress=none"]
    if args.ranks > 1:
        command = [ROOT / "tests" / "support" / "mpirun.sh", "-n", str(args.ranks), *command]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    owned = watch(process, args.worker.resolve())
    assert process.returncode == 0, f"exit code {process.returncode}"
    return {**json.loads((out / "result.json").read_text())["speed"], "owned_mib": max(owned.values()) / 2**20}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--worker", default=ROOT / "build" / "release" / "bin" / "shardmax-worker", type=pathlib.Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[60_000])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--precision", choices=["BFLOAT16", "FLOAT32"], default="BFLOAT16")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    print("| rows | pairs | seconds | pairs/s | share of the GEMM peak | owned MiB |\n|---|---|---|---|---|---|")
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            write_embeddings(folder, rows, args.dim)
            speeds = [run(args, folder, number) for number in range(args.runs)]
        for speed in speeds:
            print(f"<!-- {speed['pairs_per_second']:.3g} pairs/s, {speed['gemm_gflops']:.0f} of "
                  f"{speed['gemm_peak_gflops']:.0f} GFLOP/s: {speed['share_of_gemm_peak']:.1%} -->")
        median = {key: statistics.median(speed[key] for speed in speeds) for key in speeds[0]}
        print(f"| {rows} | {rows * (rows - 1) // 2:.3g} | {median['seconds']:.2f} | {median['pairs_per_second']:.3g} | "
              f"{median['share_of_gemm_peak']:.1%} | {median['owned_mib']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
