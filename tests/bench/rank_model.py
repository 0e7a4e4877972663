"""What a step takes on N machines, one rank each, from what was measured on one: the model of docs/performance.md.

Work is in proportion to a rank's classes. Exchange is added to it, as if none of it overlapped: four collectives of log2 N
rounds each, and the bytes that a rank receives. A rank's memory is its share of the classes' and what every rank has.
"""

import dataclasses
import math

#: Of compare.sh, which leaves them to head_bench.
BATCH, DIM = 256, 512
COLLECTIVES = 4


@dataclasses.dataclass(frozen=True)
class Model:
    seconds_a_class: float
    bytes_a_class: float
    bytes_a_rank: float
    verdict_bytes: int  # Of both all-gathers: what they carry beside rows and partials.
    bandwidth: float = 1.25e9  # Bytes a second into a machine: 10 Gbit/s.
    round_s: float = 50e-6

    def step(self, classes, ranks):
        return self.compute(classes, ranks) + self.exchange(ranks)

    def compute(self, classes, ranks):
        return self.seconds_a_class * math.ceil(classes / ranks)

    def exchange(self, ranks):
        return COLLECTIVES * math.log2(ranks) * self.round_s + received(ranks, self.verdict_bytes) / self.bandwidth

    def memory_of_a_rank(self, classes, ranks):
        return self.bytes_a_class * math.ceil(classes / ranks) + self.bytes_a_rank


def rows_of_a_rank(ranks):
    return math.ceil(BATCH / ranks)


def payloads(ranks):
    """{collective: (its formula, bytes that a rank contributes)}, without verdicts."""
    rows = rows_of_a_rank(ranks)
    return {
        "all-gather of rows": ("⌈B/N⌉ (4 D + 4)", rows * (4 * DIM + 4)),
        "all-reduce of label cosines": ("4 B", 4 * BATCH),
        "all-gather of partials": ("16 B", 16 * BATCH),
        "reduce-scatter of dX̂": ("4 N (⌈B/N⌉ D + 1)", 4 * ranks * (rows * DIM + 1)),
    }


def contributed(ranks, verdict_bytes):
    return sum(count for _, count in payloads(ranks).values()) + verdict_bytes


def received(ranks, verdict_bytes):
    """A part of an all-gather goes to all other ranks; sums are halved and doubled on the way."""
    counts = {name: count for name, (_, count) in payloads(ranks).items()}
    gathered = counts["all-gather of rows"] + counts["all-gather of partials"] + verdict_bytes
    summed = 2 * counts["all-reduce of label cosines"] + counts["reduce-scatter of dX̂"]
    return (ranks - 1) * gathered + summed * (ranks - 1) / ranks


def spaced(number):
    return f"{number:,}".replace(",", " ")


def byte_table(verdict_bytes, ranks=(1, 2, 8, 64, 512)):
    """Markdown: what a rank contributes to each collective."""
    rows = {name: (formula, [payloads(n)[name][1] for n in ranks]) for name, (formula, _) in payloads(1).items()}
    rows["verdicts of both all-gathers"] = ("", [verdict_bytes] * len(ranks))
    rows["a step"] = ("", [contributed(n, verdict_bytes) for n in ranks])
    lines = ["| collective | payload | " + " | ".join(f"N = {n}" for n in ranks) + " |", "|---" * (len(ranks) + 2) + "|"]
    lines += [f"| {name} | {formula} | " + " | ".join(map(spaced, counts)) + " |" for name, (formula, counts) in rows.items()]
    return "\n".join(lines) + "\n"


def prediction_table(models, classes, ranks=(8, 64, 512)):
    """Markdown: of each model in {name: model}, what a step takes."""
    lines = ["| | N | classes a rank | compute s | exchange s | exchange share | GB a rank |", "|---|---|---|---|---|---|---|"]
    for name, model in models.items():
        for n in ranks:
            compute, exchange = model.compute(classes, n), model.exchange(n)
            lines.append(f"| {name} | {n} | {spaced(math.ceil(classes / n))} | {compute:.3g} | {exchange:.4f} | "
                         f"{100 * exchange / (compute + exchange):.2f} % | {model.memory_of_a_rank(classes, n) / 1e9:.2f} |")
    return "\n".join(lines) + "\n"
