"""Puts the examples on the import path, and draws tiny fonts for their tests."""

from __future__ import annotations

import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "client" / "python" / "examples"
sys.path[:0] = [str(EXAMPLES), str(EXAMPLES / "glyphs")]

from fontTools.fontBuilder import FontBuilder  # noqa: E402
from fontTools.pens.ttGlyphPen import TTGlyphPen  # noqa: E402

#: (x, y, width, height) in font units, 1000 to the em.
Box = tuple[int, int, int, int]


def make_font(path: Path, glyphs: dict[int, list[Box]]) -> Path:
    """Saves a TrueType font that draws each code point as filled boxes; an empty list is a glyph without ink."""
    drawings = {".notdef": [(100, 0, 500, 700)]} | {f"u{code:05X}": boxes for code, boxes in glyphs.items()}
    outlines = {}
    for name, boxes in drawings.items():
        pen = TTGlyphPen(None)
        for x, y, width, height in boxes:
            pen.moveTo((x, y))
            for corner in ((x, y + height), (x + width, y + height), (x + width, y)):
                pen.lineTo(corner)
            pen.closePath()
        outlines[name] = pen.glyph()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(list(drawings))
    font.setupCharacterMap({code: f"u{code:05X}" for code in glyphs})
    font.setupGlyf(outlines)
    font.setupHorizontalMetrics({name: (1000, 0) for name in drawings})
    font.setupHorizontalHeader(ascent=880, descent=-120)
    font.setupNameTable({"familyName": "Boxes", "styleName": "Bold"})
    font.setupOS2()
    font.setupPost()
    font.save(path)
    return path
