"""Times a step of a margin softmax head in PyTorch on the CPU, as a user writes it. Prints one JSON object.

    .venv/bin/python tests/bench/torch_head.py --classes=100000 --precision=FLOAT32

tests/bench/compare.sh runs it with a tuned allocator. With --threads=0 the best number of threads is found first.
"""

import argparse
import json
import math
import os
import resource
import statistics
import time

import torch
import torch.nn.functional as F


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--precision", default="FLOAT32", choices=("FLOAT32", "BFLOAT16"))
    parser.add_argument("--loss", default="SV_AM_SOFTMAX", choices=("SV_AM_SOFTMAX", "ARC_SOFTMAX"))
    parser.add_argument("--steps", type=int, default=5)
    return parser.parse_args()


class Head:
    def __init__(self, args):
        self.args = args
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.nn.Parameter(0.05 * torch.randn(args.classes, args.dim, generator=generator))
        self.optimizer = torch.optim.SGD([self.weight], lr=0.01, momentum=0.9, weight_decay=5e-4)
        self.x = torch.randn(args.batch, args.dim, generator=generator)
        self.y = torch.randint(args.classes, (args.batch,), generator=generator)

    def cosines(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.args.precision == "BFLOAT16"):
            return F.linear(F.normalize(x), F.normalize(self.weight)).float()

    def logits(self, cosines):
        rows = torch.arange(len(self.y))
        target = cosines[rows, self.y]
        if self.args.loss == "ARC_SOFTMAX":
            angle = torch.acos(target.clamp(-1 + 1e-7, 1 - 1e-7)) + 0.5
            target = torch.where(angle <= math.pi, torch.cos(angle), -2 - torch.cos(angle))
            return 32 * cosines.index_put((rows, self.y), target)
        target = target - 0.35
        hard = cosines > target.detach().unsqueeze(1)
        logits = torch.where(hard, 1.2 * cosines + 0.2, cosines)
        return 32 * logits.index_put((rows, self.y), target)

    def step(self):
        x = self.x.detach().requires_grad_()
        self.optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(self.logits(self.cosines(x)), self.y).backward()
        self.optimizer.step()
        return x.grad

    def seconds(self, steps):
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            self.step()
            times.append(time.perf_counter() - start)
        return times


def best_threads(head):
    seconds = {}
    for threads in range(1, len(os.sched_getaffinity(0)) + 1):
        torch.set_num_threads(threads)
        seconds[threads] = min(head.seconds(2))
    return min(seconds, key=seconds.get)


def main():
    args = arguments()
    head = Head(args)
    threads = args.threads or best_threads(head)
    torch.set_num_threads(threads)
    head.seconds(2)
    times = head.seconds(args.steps)
    print(
        json.dumps(
            {
                "step_seconds": {"median": statistics.median(times), "min": min(times), "max": max(times)},
                "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "threads": threads,
                "torch": torch.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
