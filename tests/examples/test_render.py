"""Glyphs drawn from tiny fonts, and a whole dataset rendered from them."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import render
from conftest import Box, make_font
from faces import FaceFile, OpenFace, find_faces, read_packages

FIRST = 0x4E00


def box_glyphs(count: int, seed: int) -> dict[int, list[Box]]:
    """`count` characters of four boxes each, no two alike."""
    rng = np.random.default_rng(seed)
    return {
        FIRST + k: [tuple(map(int, (*rng.integers(0, 600, 2), *rng.integers(80, 300, 2)))) for _ in range(4)]
        for k in range(count)
    }


def test_glyphs_are_centred_by_their_ink_box(tmp_path: Path) -> None:
    boxes = {FIRST: [(0, 0, 200, 400)], FIRST + 1: [(700, 500, 200, 400)], FIRST + 2: [(-300, -200, 800, 100)]}
    with OpenFace(make_font(tmp_path / "f.ttf", boxes), 0) as face:
        glyphs = face.han_characters()
        face.set_size(list(glyphs.values()))
        images = face.draw(list(glyphs.values())).astype(float)
    for image in images:
        rows, columns = image.sum(axis=1), image.sum(axis=0)
        at = np.arange(32) + 0.5
        assert rows @ at / rows.sum() == pytest.approx(16, abs=0.05)
        assert columns @ at / columns.sum() == pytest.approx(16, abs=0.05)
    np.testing.assert_allclose(images[0], images[1], atol=8, err_msg="one size for all glyphs, but for 1/64 pixel")


def test_one_size_makes_the_sample_fit(tmp_path: Path) -> None:
    with OpenFace(make_font(tmp_path / "f.ttf", {FIRST: [(0, 0, 100, 2000)]}), 0) as face:
        face.set_size([1])
        ink = face.draw([1])[0].any(axis=1)
    assert ink.sum() in (29, 30)


def test_a_claimed_glyph_without_ink_gives_an_empty_image(tmp_path: Path) -> None:
    with OpenFace(make_font(tmp_path / "f.ttf", {FIRST: [], FIRST + 1: [(0, 0, 500, 500)]}), 0) as face:
        glyphs = face.han_characters()
        face.set_size(list(glyphs.values()))
        assert face.draw(list(glyphs.values())).any(axis=(1, 2)).tolist() == [False, True]


def test_only_unified_ideographs_are_characters(tmp_path: Path) -> None:
    codes = [0x41, 0x3042, 0x3400, 0x4E00, 0x9FFF, 0xA000, 0xF900, 0x20000]
    font = make_font(tmp_path / "f.ttf", {code: [(0, 0, 50 * k + 50, 300)] for k, code in enumerate(codes)})
    with OpenFace(font, 0) as face:
        assert list(face.han_characters()) == [0x3400, 0x4E00, 0x9FFF, 0x20000]
        assert face.title == "Boxes Bold"


def test_a_file_that_is_no_font_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.ttf").write_bytes(b"rubbish")
    with pytest.raises(OSError, match="bad.ttf: FreeType error"):
        OpenFace(tmp_path / "bad.ttf", 0)


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="package fonts-no-such-thing is not installed: run deploy/install-deps.sh"):
        find_faces(["fonts-no-such-thing"])


def test_the_package_list_leaves_out_the_acceptance_fonts() -> None:
    packages = read_packages(render.ROOT / "deploy/font-packages.txt")
    assert len(packages) == len(set(packages)) == 27
    assert not set(packages) & {"fonts-kouzan-mouhitsu", "fonts-cns11643-kai", "fonts-aoyagi-kouzan-t"}


@pytest.fixture
def fonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[FaceFile]:
    """Five faces: three hands, a copy of the first with fewer characters, and a font of one block that nobody shares."""
    glyphs = [box_glyphs(300, seed) for seed in range(3)]
    glyphs[1][FIRST + 7] = []
    glyphs[1][FIRST + 8] = glyphs[1][FIRST + 9]
    glyphs.append({code: boxes for code, boxes in glyphs[0].items() if code < FIRST + 290})
    glyphs.append({0x20000 + k: boxes for k, boxes in enumerate(box_glyphs(300, 9).values())})
    faces = [
        FaceFile(f"fonts-{k}", make_font(tmp_path / f"{k}.ttf", each), 0) for k, each in enumerate(glyphs)
    ]
    monkeypatch.setattr(render, "find_faces", lambda packages: faces)
    monkeypatch.setattr(render, "COMMON", 300)
    return faces


def options(output: Path, *more: str) -> argparse.Namespace:
    return render.parse([f"--output={output}", "--min-faces=2", "--held-out-faces=1", "--processes=1", *more])


def test_a_dataset_holds_what_the_rules_leave(fonts: list[FaceFile], tmp_path: Path) -> None:
    render.render([], tmp_path / "out", options(tmp_path / "out"))
    index = json.loads((tmp_path / "out/index.json").read_text())
    images, labels, faces = (np.load(tmp_path / f"out/{name}.npy") for name in ("images", "labels", "faces"))
    assert [face["name"] for face in index["faces"]] == [f"fonts-{k}/{k}.ttf#0" for k in range(3)]
    assert index["dropped_faces"] == {
        "fonts-3/3.ttf#0": "the same drawings as fonts-0/0.ttf#0",
        "fonts-4/4.ttf#0": "draws 0 of 256 common characters",
    }
    assert index["characters"] == list(range(FIRST, FIRST + 300))
    assert [face["images"] for face in index["faces"]] == [300, 297, 300]
    assert [face["split"] for face in index["faces"]].count("validation") == 1
    assert images.dtype == np.uint8 and images.shape == (897, 32, 32) and index["images"] == 897
    assert labels.dtype == faces.dtype == np.int32 and labels.shape == faces.shape == (897,)
    assert not set(labels[faces == 1]) & {7, 8, 9}
    with OpenFace(fonts[2].path, 0) as face:
        glyphs = face.han_characters()
        face.set_size([glyphs[int(code)] for code in render.common_sample([render.survey(each) for each in fonts])
                       if int(code) in glyphs])
        np.testing.assert_array_equal(images[faces == 2][labels[faces == 2] == 5], face.draw([glyphs[FIRST + 5]]))


def test_the_same_options_give_the_same_files(fonts: list[FaceFile], tmp_path: Path) -> None:
    for name in ("a", "b"):
        render.render([], tmp_path / name, options(tmp_path / name, "--characters=50"))
    for name in ("images.npy", "labels.npy", "faces.npy", "index.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "faces.npy", "images.npy", "index.json", "labels.npy"]


def test_a_contact_sheet_is_a_picture(fonts: list[FaceFile], tmp_path: Path) -> None:
    from PIL import Image

    render.render([], tmp_path / "out", options(tmp_path / "out"))
    render.contact_sheet(tmp_path / "out", tmp_path / "sheet.png", columns=10)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (10 * 36, 3 * 36)
        assert len(set(sheet.getdata())) > 2
