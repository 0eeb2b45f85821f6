"""Pictures in folders: which are found, every colour mode, and those that cannot be read."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, features
from torch.utils.data import DataLoader, Dataset

from coordconv_apps.data import image_files as module
from coordconv_apps.data.image_decoding import open_image, read_image
from coordconv_apps.data.image_files import (
    ImageFileError,
    ImageFiles,
    find_images,
    find_unreadable,
    image_suffixes,
    list_files,
    open_images,
)
from coordconv_apps.utils.errors import is_user_error
from tests.helpers.images import colour_of
from tests.helpers.planted import EPS, IPTC, forbid_ghostscript

RGB = tuple[int, int, int]


def save(path: Path, colour: RGB = (10, 20, 30), size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


# ------------------------------------------------------------------ which are found


def test_images_are_listed_in_every_sub_folder_and_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.JPG", "a/deep/er/1.webp", "c.tiff", ".hidden.png", ".cache/1.png", "a/.x/1.png"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "a/png").write_text("no suffix")
    (tmp_path / "folder.png").mkdir()
    save(tmp_path / "folder.png/1.bmp")
    assert list_files(tmp_path, "data.folder") == (
        ["a/deep/er/1.webp", "a/z.JPG", "b.png", "c.tiff", "folder.png/1.bmp"],
        ["a/png", "notes.txt"],
    )


@pytest.mark.parametrize(
    "suffix", ["avif", "bmp", "dib", "gif", "jfif", "jp2", "jpe", "pbm", "png", "tga", "tiff", "webp"]
)
def test_every_format_that_pillow_reads_is_used(suffix: str, tmp_path: Path) -> None:
    written = {"jp2": "jpeg2000", "jpe": "jpeg", "jfif": "jpeg", "pbm": "ppm"}.get(suffix, suffix)
    if (feature := {"avif": "avif", "jp2": "jpg_2000"}.get(suffix)) and not features.check(feature):
        pytest.skip("this Pillow is built without it")
    Image.new("1" if suffix == "pbm" else "RGB", (16, 16), 1).save(tmp_path / f"a.{suffix}", written)
    found = find_images(tmp_path, "data.folder", "error")
    assert found.names == [f"a.{suffix}"]
    assert read_image(tmp_path / found.names[0]).shape == (3, 16, 16)


def test_formats_that_pillow_does_not_decode_are_no_images() -> None:
    assert not {".eps", ".pdf", ".h5", ".mpg", ".wmf"} & set(image_suffixes())


def test_files_that_are_no_images_are_counted_and_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    for name in ("b.heic", "sub/c.svg", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    told = f"data.folder={str(tmp_path)!r}: 2 of 3 files are not images that Pillow reads: b.heic, sub/c.svg; left out"
    assert find_images(tmp_path, "data.folder", "error") == (["a.png"], set(), told)
    (tmp_path / "d.png").touch()
    assert find_images(tmp_path, "data.folder", "skip").message.splitlines() == [
        f"data.folder={str(tmp_path)!r}: 2 of 4 files are not images that Pillow reads: b.heic, sub/c.svg; left out",
        f"data.folder={str(tmp_path)!r}: 1 of 2 images cannot be read: d.png; left out",
    ]


def test_a_single_image_is_opened_as_a_folder_is(tmp_path: Path) -> None:
    save(tmp_path / "a.png", (7, 8, 9))
    save(tmp_path / "sub/b.png")
    files, found = open_images(tmp_path / "a.png", "data.predict_images", "error")
    assert (len(files), found) == (1, (["a.png"], set(), ""))
    assert colour_of(files.read(0)) == [7, 8, 9]
    assert open_images(tmp_path, "data.predict_images", "error")[1].names == ["a.png", "sub/b.png"]
    (tmp_path / "c.png").touch()
    with pytest.raises(
        ValueError, match=r"^data\.predict_images='.*c\.png': none of 1 images can be read, the first: c"
    ):
        open_images(tmp_path / "c.png", "data.predict_images", "skip")


def test_links_are_followed_and_never_in_circles(tmp_path: Path) -> None:
    inside, outside = tmp_path / "data", tmp_path / "elsewhere"
    save(inside / "1.png")
    save(outside / "2.png")
    (inside / "link").symlink_to(outside)
    (outside / "up").symlink_to(inside)
    (inside / "same.png").symlink_to(inside / "1.png")
    assert list_files(inside, "data.folder").images == ["1.png", "link/2.png", "same.png"]


def test_folders_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^data\.folder='.*nowhere': no such folder$"):
        list_files(tmp_path / "nowhere", "data.folder")
    with pytest.raises(ValueError, match=r"^data\.predict_images='.*1\.png': must be a folder, not a file$"):
        list_files(save(tmp_path / "x/1.png"), "data.predict_images")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"^data\.folder='.*empty': no images there in a format that Pillow reads$"):
        list_files(tmp_path / "empty", "data.folder")
    (tmp_path / "empty/a.heic").touch()
    with pytest.raises(ValueError, match=r"in a format that Pillow reads, only a\.heic$"):
        list_files(tmp_path / "empty", "data.folder")


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "sub/1.png")
    scan = os.scandir

    def closed(place: str) -> Any:  # noqa: ANN401  # os.scandir's private class
        if str(place).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(ValueError, match=r"^data\.folder=.*: cannot list '.*sub' \(Permission denied\)$"):
        list_files(tmp_path, "data.folder")


# ------------------------------------------------------------------ reading

GRAY = [100, 100, 100]
MODES: dict[str, tuple[Callable[[], Image.Image], str, list[int]]] = {
    "RGB": (lambda: Image.new("RGB", (6, 6), (1, 2, 3)), "png", [1, 2, 3]),
    "gray": (lambda: Image.new("L", (6, 6), 100), "png", GRAY),
    "two values": (lambda: Image.new("1", (6, 6), 1), "png", [255, 255, 255]),
    "palette": (lambda: Image.new("RGB", (6, 6), (200, 0, 50)).quantize(4), "gif", [200, 0, 50]),
    "CMYK": (lambda: Image.new("CMYK", (6, 6), (255, 0, 0, 0)), "tiff", [0, 255, 255]),
    "16 bits": (lambda: Image.fromarray(np.full((6, 6), 100 * 257, np.uint16)), "png", GRAY),
    "16 bits, dark": (lambda: Image.fromarray(np.full((6, 6), 100, np.uint16)), "png", GRAY),
    "32 bits": (lambda: Image.fromarray(np.full((6, 6), 100 * 257, np.int32)), "tiff", GRAY),
    "floats to 1": (lambda: Image.fromarray(np.full((6, 6), 100 / 255, np.float32)), "tiff", GRAY),
    "floats to 255": (lambda: Image.fromarray(np.full((6, 6), 100.2, np.float32)), "tiff", GRAY),
    "floats of 16 bits": (lambda: Image.fromarray(np.full((6, 6), 25700.3, np.float32)), "tiff", GRAY),
    "no numbers": (lambda: Image.fromarray(np.full((6, 6), np.nan, np.float32)), "tiff", [0, 0, 0]),
    "LAB": (lambda: Image.merge("LAB", [Image.new("L", (6, 6), v) for v in (255, 128, 128)]), "tiff", [254, 255, 254]),
    "transparent": (lambda: Image.new("RGBA", (6, 6), (1, 2, 3, 0)), "png", [255, 255, 255]),
    "half transparent": (lambda: Image.new("RGBA", (6, 6), (255, 0, 0, 51)), "png", [255, 204, 204]),
    "gray and alpha": (lambda: Image.new("LA", (6, 6), (0, 51)), "png", [204, 204, 204]),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_colour_mode_is_read(mode: str, tmp_path: Path) -> None:
    make, suffix, expected = MODES[mode]
    path = tmp_path / f"picture.{suffix}"
    make().save(path)
    image = read_image(path)
    assert image.shape == (3, 6, 6)
    assert colour_of(image) == expected


def test_images_are_read_whole(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 9, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "1.png")
    image = read_image(tmp_path / "1.png")
    assert image.is_contiguous()
    assert np.array_equal(image.permute(1, 2, 0).numpy(), noise)


def test_a_draft_is_as_large_as_asked_for(tmp_path: Path) -> None:
    Image.new("RGB", (320, 240), (200, 100, 0)).save(tmp_path / "1.jpg")
    sizes = [open_image(tmp_path / "1.jpg", draft).size for draft in (None, 240, 100, 30)]
    assert sizes == [(320, 240), (320, 240), (160, 120), (40, 30)]


def test_transparent_palettes_are_laid_over_white(tmp_path: Path) -> None:
    picture = Image.new("P", (6, 6), 0)
    picture.putpalette([9, 9, 9, 0, 255, 0])
    picture.paste(1, (0, 0, 6, 3))
    picture.save(tmp_path / "1.png", transparency=bytes([0, 255]))
    image = read_image(tmp_path / "1.png")
    assert colour_of(image[:, :3]) == [0, 255, 0]
    assert colour_of(image[:, 3:]) == [255, 255, 255]


def test_a_cameras_orientation_is_applied(tmp_path: Path) -> None:
    picture = Image.new("RGB", (16, 16), (255, 0, 0))
    picture.paste((0, 0, 255), (0, 8, 16, 16))  # red above blue, as it is stored
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the upper side is the right one
    picture.save(tmp_path / "1.png", exif=exif)
    image = read_image(tmp_path / "1.png")
    assert colour_of(image[:, :, 8:]) == [255, 0, 0]
    assert colour_of(image[:, :, :8]) == [0, 0, 255]


# ------------------------------------------------------------------ those that cannot be read


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A folder of five pictures, of which three cannot be read, one of them behind its head."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    for name in ("a.png", "e.png"):
        Image.fromarray(noise).save(tmp_path / name)
    (tmp_path / "b.jpg").write_text("<html>not found</html>")
    (tmp_path / "c.png").touch()
    (tmp_path / "d.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    return tmp_path


@pytest.mark.parametrize("name", ["b.jpg", "c.png", "d.png", "missing.png"])
def test_unreadable_images_are_named_in_one_line(name: str, damaged: Path) -> None:
    with pytest.raises(ValueError, match=rf"{name}: not a readable image \(.+\)$") as caught:
        read_image(damaged / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [EPS, IPTC], ids=["EPS", "IPTC"])
def test_formats_that_pillow_does_not_decode_are_refused_under_other_names(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_ghostscript(monkeypatch)
    (tmp_path / "a.png").write_bytes(content)
    assert "cannot identify image file" in find_unreadable(tmp_path, ["a.png"])["a.png"]
    with pytest.raises(ValueError, match=r"a\.png: not a readable image \(cannot identify image file"):
        read_image(tmp_path / "a.png")


def test_a_batch_has_one_whole_image_in_memory_at_a_time(tmp_path: Path) -> None:
    events: list[str] = []

    def read(path: Path) -> torch.Tensor:
        events.append(f"read {path.name}")
        return torch.zeros(1)

    def transform(image: torch.Tensor) -> torch.Tensor:
        events.append("transform")
        return image

    ImageFiles(tmp_path, ["a", "b"], "data.root", read_file=read).read_batch([0, 1], transform)
    assert events == ["read a", "transform", "read b", "transform"]


def test_unreadable_images_are_found(damaged: Path) -> None:
    names = list_files(damaged, "data.folder").images
    bad = find_unreadable(damaged, names)
    assert list(bad) == ["b.jpg", "c.png"]
    assert all(reason and "\n" not in reason for reason in bad.values())
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the message is compared below
        find_images(damaged, "data.folder", "error")
    told = f"data.folder={str(damaged)!r}: 2 of 5 images cannot be read: b.jpg, c.png"
    assert str(caught.value) == f"{told}; data.on_bad_image=skip continues without them"
    left_out = {str(damaged / "b.jpg"), str(damaged / "c.png")}
    assert find_images(damaged, "data.folder", "skip") == (["a.png", "d.png", "e.png"], left_out, f"{told}; left out")


def test_many_unreadable_images_are_counted_and_the_first_named(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.png").touch()
    with pytest.raises(ValueError, match=r": none of 8 images can be read, the first: 0\.png \(.+\)$"):
        find_images(tmp_path, "data.folder", "skip")
    save(tmp_path / "8.png")
    assert find_images(tmp_path, "data.folder", "skip").message.endswith(
        "be read: 0.png, 1.png, 2.png, 3.png, 4.png and 3 more; left out"
    )


def test_large_folders_are_listed_only(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHECKED", 4)
    assert find_images(damaged, "data.folder", "error") == (["a.png", "b.jpg", "c.png", "d.png", "e.png"], set(), "")


def test_an_unreadable_image_ends_the_run(damaged: Path) -> None:
    files = ImageFiles(damaged, ["a.png", "d.png"], "data.folder")
    assert len(files) == 2
    assert files.path(1) == damaged / "d.png"
    assert torch.equal(files.read(0), read_image(damaged / "a.png"))
    with pytest.raises(
        ValueError, match=r"d\.png: not a .*; data\.on_bad_image=skip continues without such images$"
    ) as told:
        files.read(1)
    assert is_user_error(told.value, running=True)


def test_an_unreadable_image_is_replaced_by_the_next(tmp_path: Path) -> None:
    for name, colour in (("a.png", (1, 0, 0)), ("d.png", (4, 0, 0))):
        save(tmp_path / name, colour)
    for name in ("b.png", "c.png", "e.png"):
        (tmp_path / name).touch()
    files = ImageFiles(tmp_path, list_files(tmp_path, "data.folder").images, "data.folder", "skip")
    with pytest.warns(UserWarning, match="not a readable image") as told:
        assert [int(files.read(number)[0, 0, 0]) for number in range(5)] == [1, 4, 4, 4, 1]
    assert [Path(str(one.message).split(":")[0]).name for one in told] == ["b.png", "c.png", "e.png"]
    assert files.bad == {str(tmp_path / name) for name in ("b.png", "c.png", "e.png")}
    assert [int(files.read(number)[0, 0, 0]) for number in range(5)] == [1, 4, 4, 4, 1]  # without further warnings


def test_reading_without_any_readable_image_is_refused(damaged: Path) -> None:
    files = ImageFiles(damaged, ["b.jpg", "c.png"], "data.root", "skip")
    with (
        pytest.warns(UserWarning, match="not a readable image"),
        pytest.raises(ImageFileError, match=r"^data\.root='.*': none of 2 images can be read$"),  # a user's mistake
    ):
        files.read(1)


def test_names_of_any_alphabet_are_kept(tmp_path: Path) -> None:
    names = ["zwölf é.png", "日本.png", "a.png"]
    for name in names:
        save(tmp_path / name)
    files = ImageFiles(tmp_path, names, "data.folder")
    assert [files.path(number).name for number in range(3)] == names
    assert colour_of(files.read(1)) == [10, 20, 30]


def test_the_index_of_the_replacement_is_returned(tmp_path: Path) -> None:
    for name, colour in (("a.png", (1, 0, 0)), ("c.png", (3, 0, 0))):
        save(tmp_path / name, colour)
    (tmp_path / "b.png").touch()
    files = ImageFiles(tmp_path, ["a.png", "b.png", "c.png"], "data.root", "skip")
    with pytest.warns(UserWarning, match=r"b\.png: not a readable image \(.+\): replaced by the next one$"):
        image, number = files.read_this_or_next(1)
    assert number == 2
    assert torch.equal(image, read_image(tmp_path / "c.png"))
    assert files.read_this_or_next(0)[1] == 0


def test_try_read_returns_none_for_an_unreadable_image(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "b.png").touch()
    names = ["a.png", "b.png"]
    files = ImageFiles(tmp_path, names, "data.root", "skip")
    with pytest.warns(UserWarning, match=r"b\.png: not a readable image \(.+\): left out$"):
        assert files.try_read(1) is None
    assert files.try_read(1) is None  # and is not told again
    assert files.try_read(0) is not None
    with pytest.raises(ValueError, match=r"b\.png: not a readable"):
        ImageFiles(tmp_path, names, "data.root").try_read(1)


class Reading(Dataset[int]):
    """Widths of the pictures that come for each number."""

    def __init__(self, files: ImageFiles) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is replaced, which only this process tells
            return self.files.read(index).shape[2]


def test_what_a_worker_process_cannot_read_is_known_to_all(tmp_path: Path) -> None:
    save(tmp_path / "a.png", size=(3, 3))
    (tmp_path / "b.png").touch()
    files = ImageFiles(tmp_path, ["a.png", "b.png"], "data.root", "skip")
    batches = DataLoader(Reading(files), batch_size=2, num_workers=1)
    assert [batch.tolist() for batch in batches] == [[3, 3]]
    assert files.bad == {str(tmp_path / "b.png")}
