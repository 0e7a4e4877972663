"""Measures how fast a job writes a checkpoint and resumes from it, beside what the disk can do, in alternating order.

    SHARDMAX_WORKER=build/release/bin/shardmax-worker .venv/bin/python tests/bench/checkpoint_speed.py

By default C = 500 000, D = 512, float32, SGD with momentum, 2 ranks: 2.05 GB. The disk's speed is that of as many bytes,
written in order past the page cache, 4 MiB at a time, and synced; and read likewise. Fails if the median
of the ratios of the writes is below --least. Takes a minute, and the disk space of three checkpoints. Not part of the
test suite.
"""

import argparse
import datetime
import mmap
import os
import pathlib
import re
import shutil
import sys
import tempfile
import time

import numpy as np
from bench_job import Name, make_case
from machine import processor


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_classes", type=int, default=500_000, help="C")
    parser.add_argument("--dim", type=int, default=512, help="D")
    parser.add_argument("--batch_size", type=int, default=32, help="B")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--storage", default="MEMORY", choices=("MEMORY", "MMAP"))
    parser.add_argument("--least", type=float, default=0.7, help="of the disk's speed, for writing")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", help="on the disk to measure (default: TMPDIR)")
    args = parser.parse_args()
    args.steps, args.preset, args.precision = 1, "SOFTMAX", "FLOAT32"
    return args


BLOCK = 4 << 20


def aligned_block():
    """Random bytes: zeros might be cheaper for the disk."""
    block = mmap.mmap(-1, BLOCK)
    block.write(np.random.default_rng(1).bytes(BLOCK))
    return block


def disk_write(folder, size):
    """Seconds for `size` bytes in order, past the page cache."""
    path, block = folder / "disk", aligned_block()
    start = time.monotonic()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    for _ in range(size // BLOCK):
        assert os.write(file, block) == BLOCK
    os.fsync(file)
    os.close(file)
    seconds = time.monotonic() - start
    path.unlink()
    os.sync()
    return seconds


def disk_read(files):
    """Seconds to read all of them in order, past the page cache, one after the other."""
    block, start = aligned_block(), time.monotonic()
    for path in files:
        file = os.open(path, os.O_RDONLY | os.O_DIRECT)
        while os.readv(file, [block]) == BLOCK:
            pass
        os.close(file)
    return time.monotonic() - start


def lines(case):
    """(time, text) of each line of the log."""
    found = []
    for line in case.log().splitlines():
        stamp, _, text = line.split(" ", 2)
        found.append((datetime.datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%f%z"), text))
    return found


def run(case, args, step):
    """Trains to `step`; seconds of the checkpoint, and of the resume before (None for the first)."""
    case.change(steps=step)
    (case.out / "log.txt").unlink(missing_ok=True)
    case.run(args.ranks, "--resume", limit_s=3600)
    said = lines(case)
    wrote = [float(match[1]) for _, text in said if (match := re.search(r"wrote a checkpoint in ([\d.]+) s", text))]
    begun = [stamp for stamp, text in said if " classes x " in text]
    resumed = [stamp for stamp, text in said if "resuming after step" in text]
    return wrote[-1], (resumed[0] - begun[0]).total_seconds() if resumed else None


def main():
    args = arguments()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="shardmax-checkpoint-", dir=args.folder)).resolve()
    size = 2 * args.num_classes * args.dim * 4
    try:
        case = make_case(folder / "job", args)
        case.change(storage=Name(args.storage), checkpoint={"keep": 1})
        print(f"processor  {processor()}")
        print(f"checkpoint C={args.num_classes} D={args.dim}, weights and momentum: {size / 1e9:.2f} GB of {args.ranks} ranks")
        print("round  disk write  checkpoint  ratio   disk read  resume  ratio   (GB/s)")
        ratios = []
        run(case, args, 1)
        for round_ in range(args.rounds):
            files = sorted(case.checkpoints()[-1].glob("*.safetensors"))
            write_first = disk_write(folder, size)
            read = disk_read(files)
            checkpoint, resume = run(case, args, round_ + 2)
            write = (write_first + disk_write(folder, size)) / 2
            ratios.append(write / checkpoint)
            print(
                f"{round_ + 1:5}  {size / write / 1e9:10.2f}  {size / checkpoint / 1e9:10.2f}  {ratios[-1]:5.2f}"
                f"  {size / read / 1e9:10.2f}  {size / resume / 1e9:6.2f}  {read / resume:5.2f}",
                flush=True,
            )
        median = float(np.median(ratios))
        print(f"median ratio of writing {median:.2f}: {'kept' if median >= args.least else 'BELOW'} {args.least}")
        return 0 if median >= args.least else 1
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
