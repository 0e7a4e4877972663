"""Font faces of installed Debian packages, and glyphs drawn from them.

A face is one drawing of the Han characters: a font file, or one member of a collection (.ttc). Glyphs are drawn
without hinting and without a font's embedded bitmaps, so that a face looks the same at any size, and each is centred by
its ink box, because faces disagree about where a glyph sits in its square.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import freetype.raw as ft
import numpy as np

#: Width and height of an image in pixels.
IMAGE_SIZE = 32
#: The 95th percentile of a face's longer ink side is drawn this many pixels long; what is larger may be cut off.
INK_SIZE = 29.0

#: Blocks of unified ideographs. Compatibility ideographs and radicals are left out: they repeat a unified character.
HAN_BLOCKS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0x20000, 0x323AF))

_LOAD_FLAGS = ft.FT_LOAD_NO_HINTING | ft.FT_LOAD_NO_BITMAP
_FONT_SUFFIXES = (".ttf", ".ttc", ".otf", ".otc")
_PIXEL = 64  # FreeType's coordinates are 1/64 pixel.


@dataclass(frozen=True)
class FaceFile:
    """Where a face lies: member `index` of the font file `path`, which `package` installed."""

    package: str
    path: Path
    index: int

    @property
    def name(self) -> str:
        """Names the face on any machine: `fonts-noto-cjk/NotoSansCJK-Bold.ttc#2`."""
        return f"{self.package}/{self.path.name}#{self.index}"


def read_packages(path: Path) -> list[str]:
    """The package names of a list with one name a line and `#` comments, in order."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def find_faces(packages: list[str]) -> list[FaceFile]:
    """Every face of the installed packages, sorted by package (in the order given), file and index.

    Raises FileNotFoundError if one of the packages is not installed.
    """
    faces: list[FaceFile] = []
    for package in packages:
        listing = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True, check=False)
        if listing.returncode != 0:
            raise FileNotFoundError(f"package {package} is not installed: run deploy/install-deps.sh --fonts")
        paths = sorted(Path(line) for line in listing.stdout.splitlines() if line.lower().endswith(_FONT_SUFFIXES))
        for path in paths:
            if not path.is_symlink():
                faces += [FaceFile(package, path, index) for index in range(_count_faces(path))]
    return faces


def _count_faces(path: Path) -> int:
    with OpenFace(path, -1) as face:
        return face.faces_in_file


class OpenFace:
    """A face opened for drawing. Not for use by several threads at once; close it, or use it in `with`."""

    def __init__(self, path: Path, index: int) -> None:
        self._library = ft.FT_Library()
        self._face = ft.FT_Face()
        _check(ft.FT_Init_FreeType(ctypes.byref(self._library)), path)
        error = ft.FT_New_Face(self._library, str(path).encode(), index, ctypes.byref(self._face))
        if error:
            ft.FT_Done_FreeType(self._library)
            _check(error, path)
        self._path = path

    def __enter__(self) -> OpenFace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the face; a second call does nothing."""
        if self._library:
            ft.FT_Done_FreeType(self._library)  # Frees its faces too.
            self._library = ft.FT_Library()

    @property
    def faces_in_file(self) -> int:
        return self._face.contents.num_faces

    @property
    def title(self) -> str:
        """Family and style: `Noto Sans CJK JP Bold`."""
        names = (self._face.contents.family_name, self._face.contents.style_name)
        return re.sub(r"\s+", " ", " ".join(name.decode("latin-1") for name in names if name)).strip()

    def han_characters(self) -> dict[int, int]:
        """Code point -> glyph, for the unified ideographs that the character map claims, ascending.

        The map overstates: some of these glyphs have no ink or are placeholders. Code points that share a glyph are
        left out, as two characters cannot have one identity. Empty if the face has no outlines or no Unicode map.
        """
        face = self._face.contents
        if not face.face_flags & ft.FT_FACE_FLAG_SCALABLE or not face.charmap:
            return {}
        found: dict[int, int] = {}
        glyph = ctypes.c_uint()
        for first, last in HAN_BLOCKS:
            code = first - 1
            while True:
                code = ft.FT_Get_Next_Char(self._face, code, ctypes.byref(glyph))
                if not glyph.value or code > last:
                    break
                found[code] = glyph.value
        uses: dict[int, int] = {}
        for used in found.values():
            uses[used] = uses.get(used, 0) + 1
        return {code: used for code, used in found.items() if uses[used] == 1}

    def set_size(self, glyphs: list[int]) -> None:
        """Chooses the one size of the face: `glyphs`, a sample, fit the image (see INK_SIZE)."""
        sides = []
        for glyph in glyphs:
            box = self._ink_box(glyph, ft.FT_LOAD_NO_SCALE)
            if box is not None:
                sides.append(max(box.xMax - box.xMin, box.yMax - box.yMin))
        side = float(np.percentile(sides, 95)) if sides else 0.0
        em = self._face.contents.units_per_EM
        size = round(_PIXEL * INK_SIZE * em / side) if side > 0 else int(_PIXEL * INK_SIZE)
        _check(ft.FT_Set_Char_Size(self._face, 0, size, 72, 72), self._path)

    def draw(self, glyphs: list[int]) -> np.ndarray:
        """Images [n, 32, 32] uint8 (0 paper, 255 ink) of n glyphs, each centred by its ink box; no ink gives zeros."""
        images = np.zeros((len(glyphs), IMAGE_SIZE, IMAGE_SIZE), np.uint8)
        bitmap = ft.FT_Bitmap(rows=IMAGE_SIZE, width=IMAGE_SIZE, pitch=IMAGE_SIZE, num_grays=256,
                              pixel_mode=ft.FT_PIXEL_MODE_GRAY)
        for image, glyph in zip(images, glyphs):
            box = self._ink_box(glyph, _LOAD_FLAGS)
            if box is None:
                continue
            outline = ctypes.byref(self._face.contents.glyph.contents.outline)
            middle = IMAGE_SIZE * _PIXEL // 2
            ft.FT_Outline_Translate(outline, middle - (box.xMin + box.xMax) // 2, middle - (box.yMin + box.yMax) // 2)
            bitmap.buffer = image.ctypes.data_as(ctypes.POINTER(ctypes.c_ubyte))
            _check(ft.FT_Outline_Get_Bitmap(self._library, outline, ctypes.byref(bitmap)), self._path)
        return images

    def _ink_box(self, glyph: int, flags: int) -> ft.FT_BBox | None:
        """Loads the glyph and gives the box of its outline; None if it has no outline or cannot be loaded."""
        if ft.FT_Load_Glyph(self._face, glyph, flags):
            return None  # A broken glyph is like one without ink.
        outline = self._face.contents.glyph.contents.outline
        if outline.n_points == 0:
            return None
        box = ft.FT_BBox()
        if ft.FT_Outline_Get_BBox(ctypes.byref(outline), ctypes.byref(box)):
            return None
        return box


def _check(error: int, path: Path) -> None:
    if error:
        raise OSError(f"{path}: FreeType error {error}")
