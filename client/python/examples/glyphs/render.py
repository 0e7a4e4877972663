"""Renders the glyph dataset: one class is one Han character, one image of it is its glyph in one font face.

    render.py --output=build/glyphs/images                    everything: some 16 000 characters
    render.py --output=build/glyphs/images --characters=4000  the 4 000 that most faces draw
    render.py --output=build/glyphs/images --contact-sheet=sheet.png

Writes into the output folder, row i being one image, rows ordered by face, then character:
    images.npy  uint8 [n, 32, 32]  0 paper, 255 ink
    labels.npy  int32 [n]          class, an index into `characters` of index.json
    faces.npy   int32 [n]          an index into `faces` of index.json
    index.json  characters (code points), faces (name, title, split, images), what was dropped and why, the options
The same fonts and options give the same files. docs/glyphs.md tells more.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import rules
from faces import IMAGE_SIZE, FaceFile, OpenFace, find_faces, read_packages

ROOT = Path(__file__).resolve().parents[4]
#: How many common characters faces are compared and sized by, and how many count as common.
SAMPLE, COMMON = 256, 4000
_PLACEHOLDER_GLYPH = 0


@dataclass(frozen=True)
class Survey:
    """What a face claims to hold: its title and code points [n] int32, ascending."""

    title: str
    codes: np.ndarray


def survey(face: FaceFile) -> Survey:
    with OpenFace(face.path, face.index) as font:
        return Survey(font.title, np.array(list(font.han_characters()), np.int32))


def common_sample(surveys: list[Survey]) -> np.ndarray:
    """Code points [SAMPLE] int32 spread evenly over the COMMON characters that most faces claim."""
    claims = Counter(int(code) for each in surveys for code in each.codes)
    common = sorted(sorted(claims, key=lambda code: (-claims[code], code))[:COMMON])
    return np.array(common[:: max(1, len(common) // SAMPLE)][:SAMPLE], np.int32)


def draw(face: FaceFile, codes: np.ndarray, sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws the characters `codes` [n] of a face whose size is chosen by `sample`.

    Returns images [n, 32, 32] uint8, without ink where the face lacks the character, and the face's placeholder
    [32, 32].
    """
    with OpenFace(face.path, face.index) as font:
        glyphs = font.han_characters()
        font.set_size([glyphs[code] for code in map(int, sample) if code in glyphs])
        claimed = np.array([int(code) in glyphs for code in codes], bool)
        images = np.zeros((len(codes), IMAGE_SIZE, IMAGE_SIZE), np.uint8)
        images[claimed] = font.draw([glyphs[int(code)] for code in codes[claimed]])
        return images, font.draw([_PLACEHOLDER_GLYPH])[0]


def draw_sample(face: FaceFile, sample: np.ndarray) -> np.ndarray:
    return draw(face, sample, sample)[0]


def draw_to_file(job: tuple[FaceFile, Path], codes: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Draws a face's characters, saves the images that belong into the dataset, and returns their code points."""
    face, path = job
    images, placeholder = draw(face, codes, sample)
    belongs = rules.drawn_once(images, placeholder)
    np.save(path, images[belongs])
    return codes[belongs]


def render(packages: list[str], output: Path, args: argparse.Namespace) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "index.json").unlink(missing_ok=True)  # Its presence means that the folder is complete.
    found = find_faces(packages)
    with ProcessPoolExecutor(args.processes) as pool, tempfile.TemporaryDirectory(dir=output) as scratch:
        surveys = list(pool.map(survey, found))
        sample = common_sample(surveys)
        samples = np.stack(list(pool.map(functools.partial(draw_sample, sample=sample), found)))
        kept, dropped = rules.distinct_faces(samples, [len(each.codes) for each in surveys])
        for face, why in sorted(dropped.items()):
            log(f"dropped {found[face].name}: {reason(found, why)}")
        groups = rules.related_groups(samples[kept], [found[face].package for face in kept])
        held_out = rules.hold_out(groups, args.held_out_faces, args.seed)

        claims = rules.choose_characters([surveys[face].codes for face in kept], args.min_faces, None)
        jobs = [(found[face], Path(scratch) / f"{face}.npy") for face in kept]
        drawn = list(pool.map(functools.partial(draw_to_file, codes=claims, sample=sample), jobs))
        characters = rules.choose_characters(drawn, args.min_faces, args.characters)
        counts = gather([path for _, path in jobs], drawn, characters, output)

    described = [
        {"name": found[face].name, "title": surveys[face].title, "images": count,
         "split": "validation" if at in held_out else "train"}
        for at, (face, count) in enumerate(zip(kept, counts))
    ]
    index = {
        "options": {"characters": args.characters, "min_faces": args.min_faces,
                    "held_out_faces": args.held_out_faces, "seed": args.seed},
        "images": sum(counts),
        "faces": described,
        "dropped_faces": {found[face].name: reason(found, why) for face, why in sorted(dropped.items())},
        "characters": [int(code) for code in characters],
    }
    (output / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    log(f"{sum(counts)} images of {len(characters)} characters in {len(kept)} faces, {len(held_out)} of them held out: "
        f"{output}")


def gather(paths: list[Path], drawn: list[np.ndarray], characters: np.ndarray, output: Path) -> list[int]:
    """Writes the dataset's three arrays from the images of each face; returns the number of images per face."""
    chosen = [np.isin(codes, characters) for codes in drawn]
    counts = [int(mask.sum()) for mask in chosen]
    shape = (sum(counts), IMAGE_SIZE, IMAGE_SIZE)
    images = np.lib.format.open_memmap(output / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    first = 0
    for path, mask, count in zip(paths, chosen, counts):
        images[first : first + count] = np.load(path, mmap_mode="r")[mask]
        path.unlink()
        first += count
    images.flush()
    labels = np.concatenate([np.searchsorted(characters, codes[mask]) for codes, mask in zip(drawn, chosen)])
    np.save(output / "labels.npy", labels.astype(np.int32))
    np.save(output / "faces.npy", np.repeat(np.arange(len(counts), dtype=np.int32), counts))
    return counts


def contact_sheet(folder: Path, picture: Path, columns: int = 24) -> None:
    """Saves a picture of a dataset: one row per face, one column per character, held-out faces in blue."""
    from PIL import Image  # Only this needs it.

    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    images = np.load(folder / "images.npy", mmap_mode="r")
    labels, faces = np.load(folder / "labels.npy"), np.load(folder / "faces.npy")
    shown = np.linspace(0, len(index["characters"]) - 1, columns).astype(int)
    cell = IMAGE_SIZE + 4
    sheet = np.full((len(index["faces"]) * cell, columns * cell, 3), 255, np.uint8)
    for row, face in enumerate(index["faces"]):
        here = np.flatnonzero(faces == row)
        for column, label in enumerate(shown):
            for image in images[here[labels[here] == label]]:
                tile = sheet[row * cell + 2 : row * cell + 2 + IMAGE_SIZE, column * cell + 2 : column * cell + 2 + IMAGE_SIZE]
                tile[...] = 255 - image[..., None]
                if face["split"] == "validation":
                    tile[..., 2] = 255
    Image.fromarray(sheet).save(picture)
    log(f"contact sheet: {picture}")


def reason(found: list[FaceFile], why: str | int) -> str:
    return why if isinstance(why, str) else f"the same drawings as {found[why].name}"


def log(line: str) -> None:
    print(f"render: {line}", file=sys.stderr)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--packages", type=Path, default=ROOT / "deploy/font-packages.txt",
                        help="list of Debian packages (default: deploy/font-packages.txt)")
    parser.add_argument("--characters", type=int, help="at most so many, the most widely drawn (default: all)")
    parser.add_argument("--min-faces", type=int, default=15, help="a character is drawn by so many distinct faces")
    parser.add_argument("--held-out-faces", type=int, default=6, help="faces for validation")
    parser.add_argument("--seed", type=int, default=1, help="draws the held-out faces")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--contact-sheet", type=Path, metavar="PNG",
                        help="only save a picture of the dataset in --output")
    return parser.parse_args(argv)


def main() -> None:
    args = parse()
    if args.contact_sheet:
        contact_sheet(args.output, args.contact_sheet)
    else:
        render(read_packages(args.packages), args.output, args)


if __name__ == "__main__":
    main()
