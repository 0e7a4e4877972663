"""python -m shardmax.weights: see the package."""

from __future__ import annotations

import argparse
import sys
from typing import List, Optional

from shardmax.errors import ShardmaxError
from shardmax.weights import __doc__ as about
from shardmax.weights import convert


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m shardmax.weights", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="+", metavar="FILE", help="weights; of PartialFC those of all ranks")
    parser.add_argument("--output", required=True, metavar="FILE", help="file to write; replaced when it is complete")
    parser.add_argument("--format", default="", choices=["safetensors", "npy", "torch"], help="default: by its ending")
    parser.add_argument("--tensor", default="weight", metavar="NAME", help="name of the tensor (default: weight)")
    parser.add_argument("--num_classes", type=int, metavar="C", help="refuse weights of another number of classes")
    options = parser.parse_args(arguments)
    try:
        classes, width = convert(
            options.sources,
            options.output,
            format=options.format,
            tensor=options.tensor,
            num_classes=options.num_classes,
        )
    except (ShardmaxError, OSError) as error:
        print(f"shardmax.weights: {error}", file=sys.stderr)
        return 1
    print(f"{options.output}: {classes} classes, {width} wide")
    return 0


if __name__ == "__main__":
    sys.exit(main())
