"""Trains a CNN on glyphs end to end, its head in shardmax, and tells how well it knows characters it has not seen.

    train_backbone.py --images=build/glyphs/images --output=build/glyphs/run      starts a server and a pool of 2 ranks
    train_backbone.py --images=… --output=… --server=HOST:PORT                    of which the output is in the data root

Leaves in the output folder:
    metrics.jsonl, job.json             loss, support-vector ratio and accuracy by step: plot_job.py draws them
    backbone.pt                         state dict of model.Backbone
    class_weights.npy                   float32 [C, D]; code points in characters.npy [C]
    held_out_{embeddings,labels}.npy    trained characters in held-out faces: confusions.py draws the hardest
    unseen_{embeddings,identities}.npy  unseen characters in held-out faces
    {verification,identification,all_pairs}/result.json   of them: plot_evaluation.py draws ROC and CMC
    summary.json                        settings and figures; its presence means that the folder is complete
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # The ranks need the processors while torch waits for them.

import argparse
import contextlib
import ctypes
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import shardmax
from batches import Batches
from head_jobs import Settings
from model import embed, flops
from open_set import PairCheck, evaluate, keep
from split import Glyphs, Split, load_split, with_label_noise
from training import Trained, train


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Trains, embeds and evaluates; returns and writes the summary."""
    settings = Settings(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Settings)})
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "summary.json").unlink(missing_ok=True)
    split = load_split(args.images, args.characters, args.unseen, args.faces)
    noisy = with_label_noise(split.train, args.label_noise, args.characters, settings.seed)
    began = time.monotonic()
    with server(args) as (client, address):
        pairs = PairCheck(split.unseen.images, split.unseen.labels)
        batches = Batches(noisy, settings.batch, settings.seed)
        trained = train(client, address, settings, batches, args.characters, args.output,
                        lambda backbone: pairs.accuracy(embed(backbone, pairs.images)), args.quiet)
        save(client, trained, split, args.output)
        figures = evaluate(client, "glyphs", args.output / "unseen_embeddings.npy",
                           args.output / "unseen_identities.npy", args.output)
    summary = {
        "settings": dataclasses.asdict(settings), "label_noise": args.label_noise, "characters": args.characters,
        "unseen_characters": args.unseen, "train_images": len(split.train), "unseen_images": len(split.unseen),
        "faces": split.faces, "flops_per_image": flops(trained.backbone),
        "images_per_second": round(trained.images_per_second), "seconds": round(time.monotonic() - began, 1),
        "held_out_top1": top1(args.output), **figures,
    }
    (args.output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


def keep_memory() -> None:
    """Has glibc keep what a step frees for the next one: else the system clears the same pages again and again."""
    trim_threshold, mmap_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 32 << 20)
        libc.mallopt(trim_threshold, 1 << 30)


@contextlib.contextmanager
def server(args: argparse.Namespace) -> Iterator[tuple[shardmax.Client, str]]:
    """A client, and the address of its server: that of --server, or one of our own."""
    if args.server:
        with shardmax.Client(args.server) as client:
            yield client, args.server
    else:
        with shardmax.local(ranks=args.ranks, threads=1, data_root=args.output, bin=args.bin) as cluster:
            yield cluster.client, cluster.address


def save(client: shardmax.Client, trained: Trained, split: Split, output: Path) -> None:
    """Weights and embeddings."""
    keep(Path(trained.job.folder), output, "job.json")
    torch.save(trained.backbone.state_dict(), output / "backbone.pt")
    client.export(trained.job.id, output / "class_weights.npy")
    np.save(output / "characters.npy", split.trained)
    sets: dict[str, tuple[Glyphs, str]] = {"held_out": (split.held_out, "labels"), "unseen": (split.unseen, "identities")}
    for name, (glyphs, labels) in sets.items():
        np.save(output / f"{name}_embeddings.npy", embed(trained.backbone, glyphs.images))
        np.save(output / f"{name}_{labels}.npy", glyphs.labels)


def top1(output: Path, rows: int = 4096) -> float:
    """The share of held-out glyphs of trained characters whose nearest class centre is their own."""
    weights = np.load(output / "class_weights.npy")
    directions = (weights / np.linalg.norm(weights, axis=1, keepdims=True)).T
    embeddings, labels = np.load(output / "held_out_embeddings.npy"), np.load(output / "held_out_labels.npy")
    right = sum(int(((embeddings[at : at + rows] @ directions).argmax(axis=1) == labels[at : at + rows]).sum())
                for at in range(0, len(labels), rows))
    return right / len(labels)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--images", type=Path, required=True, help="folder that render.py wrote")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--characters", type=int, default=4000, help="C, characters to train on")
    parser.add_argument("--unseen", type=int, default=2000, help="characters of the open set")
    parser.add_argument("--faces", type=int, default=15, help="training faces")
    parser.add_argument("--label-noise", type=float, default=0.0, help="share of training labels that are wrong")
    parser.add_argument("--server", help="HOST:PORT of a server with an idle pool (default: start one, with a pool)")
    parser.add_argument("--ranks", type=int, default=2, help="of the pool that is started")
    parser.add_argument("--bin", type=Path, help="folder of shardmax-server and shardmax-worker")
    parser.add_argument("--threads", type=int, help="of torch (default: one a processor)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    for field in dataclasses.fields(Settings):
        kind = {"str": str, "int": int}.get(str(field.type), float)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default,
                            help=f"default: {'as the preset has it' if field.default is None else field.default}")
    return parser.parse_args(argv)


def main() -> int:
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    keep_memory()
    try:
        summary = run(args)
    except (OSError, ValueError, RuntimeError, shardmax.ShardmaxError) as error:
        print(f"train_backbone: {error}", file=sys.stderr)
        return 1
    tpr = ", ".join(f"{rate:.1%} at {fpr}" for fpr, rate in summary["tpr_at_fpr"].items())
    print(f"unseen characters in unseen faces: verification accuracy {summary['verification_accuracy']:.2%}, rank-1 among "
          f"{summary['distractors']:,} distractors {summary['rank_1']:.1%}, TPR {tpr}")
    print(f"trained characters in unseen faces: top-1 {summary['held_out_top1']:.2%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
