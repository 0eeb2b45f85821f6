"""Sources of glyphs: what they hold, that their splits share no glyph, and the messages for mistakes."""

import gzip
import struct
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from coordconv_apps.data.splits import SPLITS, Split
from detection import glyph_sources
from detection.glyph_sources import MNIST_FILES, Source, load_class_names, load_glyphs
from detection.glyphs import Glyphs
from detection.gray_images import Bytes
from detection.idx_files import read_idx


def idx_bytes(array: Bytes) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def digit_like(rng: np.random.Generator, count: int) -> Bytes:
    """Images `(count, 28, 28)` with a different blot in each, of 5 to 20 pixels a side."""
    images = np.zeros((count, 28, 28), np.uint8)
    for image in images:
        h, w = rng.integers(5, 21, 2)
        y, x = rng.integers(0, 28 - h + 1), rng.integers(0, 28 - w + 1)
        image[y : y + h, x : x + w] = rng.integers(1, 256, (h, w))
    return images


def contents(glyphs: Glyphs) -> set[bytes]:
    return {
        image[:h, :w].numpy().tobytes() + bytes([h, w])
        for image, (h, w) in zip(glyphs.images, glyphs.sizes.tolist(), strict=True)
    }


def assert_disjoint(loaded: dict[Split, Glyphs]) -> None:
    for one, other in combinations(SPLITS, 2):
        assert not contents(loaded[one]) & contents(loaded[other])


def one_line(error: pytest.ExceptionInfo[BaseException]) -> bool:
    return "\n" not in str(error.value)


@pytest.fixture
def mnist_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with a small MNIST: 60 training digits, the last 10 of them for validation, and 20 test digits."""
    monkeypatch.setattr(glyph_sources, "MNIST_NUM_VAL", 10)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for images, labels, count in ((*MNIST_FILES[:2], 60), (*MNIST_FILES[2:], 20)):
        (raw / images).write_bytes(idx_bytes(digit_like(rng, count)))
        (raw / labels).write_bytes(idx_bytes((np.arange(count) % 10).astype(np.uint8)))
    return tmp_path


class TestUci:
    def test_every_digit_is_in_one_split(self) -> None:
        loaded = load_glyphs("uci")
        digits = load_digits()
        numbers = torch.cat([loaded[split].source_index for split in SPLITS])
        assert torch.equal(numbers.sort().values, torch.arange(1797))
        for glyphs in loaded.values():
            assert glyphs.class_names == tuple("0123456789")
            assert torch.equal(glyphs.labels, torch.from_numpy(digits.target)[glyphs.source_index])

    def test_digits_are_cut_down_to_their_ink(self) -> None:
        train = load_glyphs("uci", ["train"])["train"]
        originals = load_digits().images
        for image, (h, w), number in zip(
            train.images[:200], train.sizes.tolist(), train.source_index.tolist(), strict=False
        ):
            y, x = np.nonzero(originals[number])
            cut = originals[number][y.min() : y.max() + 1, x.min() : x.max() + 1]
            assert cut.shape == (h, w)
            np.testing.assert_allclose(image[:h, :w], cut * 255 / 16, atol=0.5)
            assert not image[h:].any()
            assert not image[:, w:].any()
        assert train.images.max() == 255

    def test_splits_share_no_image_and_have_all_classes(self) -> None:
        loaded = load_glyphs("uci")
        assert_disjoint(loaded)
        for split, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
            per_class = torch.bincount(loaded[split].labels, minlength=10) / 179.7
            torch.testing.assert_close(per_class, torch.full((10,), share), atol=0.03, rtol=0)

    def test_splits_never_change(self) -> None:
        torch.manual_seed(1)
        np.random.seed(1)
        first = load_glyphs("uci")
        torch.manual_seed(2)
        np.random.seed(2)
        assert torch.equal(first["test"].source_index, load_glyphs("uci", ["test"])["test"].source_index)


class TestMnist:
    def test_training_digits_are_split_and_test_digits_are_for_tests(self, mnist_root: Path) -> None:
        loaded = load_glyphs("mnist", root=mnist_root)
        assert {split: len(glyphs) for split, glyphs in loaded.items()} == {"train": 50, "val": 10, "test": 20}
        assert loaded["train"].source_index.tolist() == list(range(50))
        assert loaded["val"].source_index.tolist() == list(range(50, 60))
        raw = mnist_root / "MNIST" / "raw"
        test = read_idx(raw / MNIST_FILES[2])
        assert contents(loaded["test"]) == {
            cut.tobytes() + bytes(cut.shape) for cut in (image[np.ix_(image.any(1), image.any(0))] for image in test)
        }
        assert_disjoint(loaded)
        assert loaded["val"].labels.tolist() == list(range(10))

    def test_gzipped_files_are_read(self, mnist_root: Path) -> None:
        plain = load_glyphs("mnist", root=mnist_root)
        for name in MNIST_FILES:
            path = mnist_root / "MNIST" / "raw" / name
            path.with_name(f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        assert torch.equal(load_glyphs("mnist", root=mnist_root)["train"].images, plain["train"].images)

    def test_without_network_the_files_and_their_place_are_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def offline(root: str, download: bool) -> None:
            raise RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nTried x\n<no network>\n")

        monkeypatch.setattr(glyph_sources, "MNIST", offline)
        root = tmp_path / "nothing"
        with pytest.raises(FileNotFoundError) as caught:
            load_glyphs("mnist", root=root)
        assert one_line(caught)
        for told in (*MNIST_FILES, str(root / "MNIST" / "raw"), "COORDCONV_DATA", "data.root", "<no network>"):
            assert told in str(caught.value)
        assert not root.exists()

    def test_missing_files_are_downloaded(
        self, mnist_root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def download(root: str, download: bool) -> None:
            assert download
            (mnist_root / "MNIST").rename(Path(root) / "MNIST")

        expected = load_glyphs("mnist", root=mnist_root)
        monkeypatch.setattr(glyph_sources, "MNIST", download)
        root = tmp_path_factory.mktemp("root")
        assert torch.equal(load_glyphs("mnist", root=root)["val"].images, expected["val"].images)
        assert sorted(path.name for path in (root / "MNIST" / "raw").iterdir()) == sorted(MNIST_FILES)


class TestIdx:
    @pytest.fixture
    def pair(self, tmp_path: Path) -> tuple[Path, Path]:
        images, labels = tmp_path / "images", tmp_path / "labels"
        images.write_bytes(idx_bytes(digit_like(np.random.default_rng(0), 60)))
        labels.write_bytes(idx_bytes((np.arange(60) % 3 + 7).astype(np.uint8)))
        return images, labels

    def test_every_idx_glyph_is_in_one_split(self, pair: tuple[Path, Path]) -> None:
        loaded = load_glyphs("idx", glyphs=pair[0], glyph_labels=pair[1])
        numbers = torch.cat([glyphs.source_index for glyphs in loaded.values()])
        assert torch.equal(numbers.sort().values, torch.arange(60))
        for glyphs in loaded.values():
            assert glyphs.class_names == ("7", "8", "9")
            assert torch.equal(glyphs.labels, glyphs.source_index % 3)
        assert load_class_names(*pair) == ("7", "8", "9")

    def test_copies_stay_together(self, tmp_path: Path) -> None:
        once = digit_like(np.random.default_rng(0), 30)
        (tmp_path / "i").write_bytes(idx_bytes(np.concatenate([once, np.roll(once, 1, axis=0)[::-1], once])))
        (tmp_path / "l").write_bytes(idx_bytes(np.zeros(90, np.uint8)))
        loaded = load_glyphs("idx", glyphs=tmp_path / "i", glyph_labels=tmp_path / "l")
        assert_disjoint(loaded)
        assert [len(loaded[split]) for split in SPLITS] == [63, 9, 18]

    def test_large_glyphs_are_shrunk(self, pair: tuple[Path, Path]) -> None:
        loaded = load_glyphs("idx", glyphs=pair[0], glyph_labels=pair[1], max_side=9)
        full = load_glyphs("idx", glyphs=pair[0], glyph_labels=pair[1])
        for split in SPLITS:
            factor = (9 / full[split].sizes.max(1).values).clamp(max=1)
            expected = full[split].sizes * factor[:, None]
            assert (loaded[split].sizes - expected).abs().max() <= 0.5001
            assert torch.equal(loaded[split].source_index, full[split].source_index)

    def test_invalid_idx_files_are_refused_in_one_line(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        images, labels = pair

        def message(images: Path, labels: Path, kind: type[Exception] = ValueError) -> str:
            with pytest.raises(kind) as caught:
                load_glyphs("idx", glyphs=images, glyph_labels=labels)
            assert one_line(caught)
            return str(caught.value)

        bad = tmp_path / "bad"
        assert message(bad, labels, FileNotFoundError) == f"{bad}: no such IDX file"
        assert message(labels, labels) == f"{labels}: must hold images (G, H, W), but has shape (60,)"
        assert message(images, images) == f"{images}: must hold 60 labels, but has shape (60, 28, 28)"
        bad.write_bytes(b"\x89PNG....")
        assert message(bad, labels) == f"{bad}: not an IDX file of unsigned bytes"
        bad.write_bytes(images.read_bytes()[:-10])
        assert message(bad, labels) == f"{bad}: shape (60, 28, 28) needs 47040 bytes, 47030 found"
        bad.write_bytes(gzip.compress(images.read_bytes())[:-10])
        assert message(bad, labels).startswith(f"{bad}: damaged gzip file")
        blank = read_idx(images).copy()
        blank[[4, 9]] = 0
        bad.write_bytes(idx_bytes(blank))
        assert message(bad, labels) == f"{bad}: 2 images without ink, the first is number 4 (from 0)"
        bad.write_bytes(idx_bytes(np.r_[np.zeros(58), 1, 1].astype(np.uint8)))
        assert message(images, bad).startswith("class '1' has 2 different glyphs, must have at least 3")


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        rng = np.random.default_rng(0)
        for name in ("cross", "a ring"):
            (tmp_path / name).mkdir()
            for number, image in enumerate(digit_like(rng, 10)):
                # Clearly ink, and no two alike.
                Image.fromarray(np.where(image > 0, image // 2 + 100, 0)).save(tmp_path / name / f"{number}.png")
        (tmp_path / ".hidden").mkdir()
        (tmp_path / "cross" / "notes.txt").write_text("not a picture")
        return tmp_path

    def test_folder_gives_class_names_labels_and_splits(self, folder: Path) -> None:
        with pytest.warns(
            UserWarning, match=r"cross': 1 of 11 files are not images that Pillow reads: notes\.txt; left"
        ):
            loaded = load_glyphs("folder", glyphs=folder)
        assert [len(loaded[split]) for split in SPLITS] == [14, 2, 4]
        for glyphs in loaded.values():
            assert glyphs.class_names == ("a ring", "cross")
            assert torch.equal(glyphs.labels, glyphs.source_index // 10)
        assert load_class_names(folder, None) == ("a ring", "cross")

    def test_large_images_are_shrunk_smoothly(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        for number in range(3):
            picture = np.full((300, 400), 255, np.uint8)
            picture[50 : 250 - 40 * number, 100:200:2] = 0  # stripes that are gone where every eighth pixel is taken
            Image.fromarray(picture).save(tmp_path / "a" / f"{number}.png")
        glyphs = load_glyphs("folder", ["train"], glyphs=tmp_path, max_side=25)["train"]
        h, w = glyphs.sizes[0].tolist()
        assert max(h, w) == 25
        assert (glyphs.images[0, :h, :w].float() - 127).abs().max() < 30

    @pytest.mark.filterwarnings("ignore:.* are not images that Pillow reads")
    def test_invalid_folders_are_refused_in_one_line(self, folder: Path) -> None:
        def message(place: Path, kind: type[Exception] = ValueError) -> str:
            with pytest.raises(kind) as caught:
                load_glyphs("folder", glyphs=place)
            assert one_line(caught)
            return str(caught.value)

        assert message(folder / "x", FileNotFoundError) == f"glyphs={str(folder / 'x')!r}: no such folder"
        assert "must have a folder of images for each class, has none" in message(folder / "cross")
        (folder / "empty").mkdir()
        assert message(folder).startswith(f"glyphs={str(folder / 'empty')!r}: no images there")
        (folder / "empty" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
        assert message(folder).startswith(f"{folder / 'empty' / '1.png'}: not a readable image")
        Image.new("L", (9, 9), 0).save(folder / "empty" / "1.png")
        assert message(folder) == f"{folder / 'empty' / '1.png'}: no ink in this image (ink='auto')"


@pytest.mark.parametrize(
    ("source", "given", "message"),
    [
        ("cifar", {}, "source='cifar': must be one of uci, mnist, folder, idx"),
        ("folder", {}, "glyphs=null: must be a folder with a subfolder of images for each class"),
        ("idx", {}, "glyphs=null: must be an IDX file of images with source='idx'"),
        ("idx", {"glyphs": Path("x")}, "glyph_labels=null: must be an IDX file of labels with source='idx'"),
        ("mnist", {"glyphs": Path("x")}, "glyphs='x': must be null (only the sources 'folder' and 'idx'"),
        ("uci", {"glyph_labels": Path("x")}, "glyph_labels='x': must be null with source='uci'"),
    ],
)
def test_contradictory_arguments_are_refused_in_one_line(source: Source, given: dict[str, Path], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the message is compared below
        load_glyphs(source, **given)  # type: ignore[arg-type]  # paths only
    assert str(caught.value).startswith(message)
    assert one_line(caught)
