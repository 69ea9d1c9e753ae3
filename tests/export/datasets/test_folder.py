import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelmint_export.datasets.folder import ImageFolderSet
from labelmint_export.errors import DatasetError

RED = (200, 30, 40)


def save(path: Path, image: Image.Image, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)  # type: ignore[arg-type]  # Pillow's options differ by format


def test_images_of_all_folders_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for i, name in enumerate(["b.png", "a/z.bmp", "a/b/c.webp", "C.JPG", "d.jpeg"]):
        save(tmp_path / name, Image.new("RGB", (8, 8), (40 * i, 0, 0)))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"no image")
    (tmp_path / "folder.png").mkdir()
    images = ImageFolderSet(tmp_path, 8)
    assert len(images) == 5
    assert [path.name for path in images.paths] == ["C.JPG", "c.webp", "z.bmp", "b.png", "d.jpeg"]
    assert images.read([3]).tobytes() == bytes(8 * 8 * 3)


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    """Thumbnails, what notebooks copied, and what a system keeps beside a file."""
    root = tmp_path / ".set"  # a hidden root was asked for by name
    for name in ("a.png", ".b.png", ".thumbnails/c.png", "d/.ipynb_checkpoints/e.png", "d/f.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / name)
    assert [str(path.relative_to(root)) for path in ImageFolderSet(root, 8).paths] == ["a.png", "d/f.png"]


def test_batch_is_uint8_in_the_order_asked_for(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"{i}.png", Image.new("RGB", (10, 10), (i, i, i)))
    batch = ImageFolderSet(tmp_path, 4).read([2, 0, 2])
    assert batch.shape == (3, 4, 4, 3)
    assert batch.dtype == np.uint8
    assert batch[:, 0, 0, 0].tolist() == [2, 0, 2]


def test_wide_image_is_cropped_to_its_middle(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, 20:40] = RED
    save(tmp_path / "wide.png", Image.fromarray(pixels))
    (image,) = ImageFolderSet(tmp_path, 20).read([0])
    assert (image == RED).all()


def test_reduction_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, ::2] = 255
    save(tmp_path / "stripes.png", Image.fromarray(stripes))
    (image,) = ImageFolderSet(tmp_path, 16).read([0])
    assert np.abs(image[:, 2:-2].astype(int) - 128).max() < 8


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (8, 8), 90), (90, 90, 90)),
        (Image.new("1", (8, 8), 1), (255, 255, 255)),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 51)), (204, 204, 204)),
        (Image.new("LA", (8, 8), (100, 255)), (100, 100, 100)),
        (Image.new("P", (8, 8), 0), (0, 0, 0)),
        (Image.fromarray(np.full((8, 8), 257 * 90, dtype=np.uint16)), (90, 90, 90)),
    ],
    ids=["grey", "bilevel", "transparent", "translucent", "grey-alpha", "palette", "grey16"],
)
def test_every_mode_becomes_rgb_on_white(tmp_path: Path, image: Image.Image, expected: tuple[int, int, int]) -> None:
    save(tmp_path / "image.png", image)
    (pixels,) = ImageFolderSet(tmp_path, 8).read([0])
    assert (pixels == expected).all()


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    save(tmp_path / "print.jpg", Image.new("RGB", (16, 16), RED).convert("CMYK"), quality=95)
    (pixels,) = ImageFolderSet(tmp_path, 8).read([0])
    assert np.abs(pixels.astype(int) - RED).max() < 8


def build_linear_profile() -> bytes:
    """Build an ICC profile with sRGB's primaries and linear light (a matrix profile of version 2)."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    primaries = {
        b"wtpt": (0.9642, 1.0, 0.8249),
        b"rXYZ": (0.4360, 0.2225, 0.0139),
        b"gXYZ": (0.3851, 0.7169, 0.0971),
        b"bXYZ": (0.1431, 0.0606, 0.7141),
    }
    tags = {name: b"XYZ \0\0\0\0" + b"".join(map(fixed, xyz)) for name, xyz in primaries.items()}
    tags |= {name: b"curv\0\0\0\0" + struct.pack(">IHxx", 1, 256) for name in (b"rTRC", b"gTRC", b"bTRC")}
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", 7) + b"linear\0" + bytes(79)
    tags[b"cprt"] = b"text\0\0\0\0none\0\0\0\0"
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    illuminant = b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    size = 128 + len(table) + len(body)
    header = struct.pack(">I4xI", size, 0x02400000) + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    return (header + illuminant).ljust(128, b"\0") + table + body


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colour_profile_is_converted_to_srgb(tmp_path: Path, mode: str) -> None:
    save(
        tmp_path / "linear.png",
        Image.new(mode, (8, 8), (55, 55, 128, 255)[: len(mode)]),
        icc_profile=build_linear_profile(),
    )
    (pixels,) = ImageFolderSet(tmp_path, 8).read([0])
    assert np.abs(pixels.astype(int) - (128, 128, 188)).max() <= 2


def test_exif_orientation_turns_the_image_upright(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    save(tmp_path / "turned.png", Image.fromarray(pixels), exif=exif)
    (image,) = ImageFolderSet(tmp_path, 16).read([0])
    assert image[:8].max() == 0
    assert image[8:].min() == 255


def test_damaged_file_is_named(tmp_path: Path) -> None:
    save(tmp_path / "good.png", Image.effect_noise((32, 32), 50.0))
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "torn.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("not an image")
    images = ImageFolderSet(tmp_path, 8)
    images.read([0])
    for index, name in ((1, r"text\.png"), (2, r"torn\.png")):
        with pytest.raises(DatasetError, match=rf"{name} cannot be read as an image"):
            images.read([index])


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere is not a folder"):
        ImageFolderSet(tmp_path / "nowhere", 8)


def test_folder_without_images_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DatasetError, match=r"holds no images; expected files that end in \.bmp, \.jpeg"):
        ImageFolderSet(tmp_path, 8)


@pytest.mark.parametrize("index", [-1, 1])
def test_index_without_image_is_refused(tmp_path: Path, index: int) -> None:
    save(tmp_path / "only.png", Image.new("RGB", (8, 8)))
    with pytest.raises(DatasetError, match=f"index {index} has no image, expected 0 to 0"):
        ImageFolderSet(tmp_path, 8).read([index])


def test_resolution_out_of_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="resolution is 0"):
        ImageFolderSet(tmp_path, 0)
