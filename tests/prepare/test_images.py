"""One image file: every mode that Pillow writes, and every way of being no image."""

import contextlib
import io
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin
from small_folders import BROKEN, RNG, encoded, noise

from vtabflow.contracts.specs import FolderDecoding
from vtabflow.prepare import images


def test_lossless_kinds_give_the_pixels_that_were_put_in():
    colour, grey = noise(5, 7), noise(5, 7, 1)
    assert (images.decode(encoded(colour)).pixels == colour).all()
    assert (images.decode(encoded(grey)).pixels == grey[:, :, None]).all()
    assert (images.decode(encoded(colour, "BMP")).pixels == colour).all()
    assert (images.decode(encoded(colour, "WEBP", lossless=True)).pixels == colour).all()
    assert (images.decode(encoded(grey > 99)).pixels == 255 * (grey > 99)[:, :, None]).all()
    palette = Image.new("P", (7, 5))
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    palette.putdata((grey % 4).reshape(-1).tolist())
    table = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]], np.uint8)
    assert (images.decode(encoded(palette)).pixels == table[grey % 4]).all()


def test_sixteen_bits_are_scaled_and_not_clipped():
    values = np.array([[0, 128, 129, 257, 300, 32768, 65535, 65406, 65407]], np.uint16)
    expected = [[round(int(value) / 257) for value in values[0]]]
    for data in (encoded(values), encoded(values, "TIFF")):
        assert images.decode(data).pixels[:, :, 0].tolist() == expected
        assert images.header(io.BytesIO(data), len(data)) == (1, 9, True)


def test_a_range_makes_twelve_bits_visible():
    """v from low..high becomes round(255 (v - low) / (high - low)), clipped."""
    values = np.array([[0, 7, 8, 100, 2048, 4095, 4096, 65535]], np.uint16)
    for data in (encoded(values), encoded(values, "TIFF")):
        found = images.decode(data, FolderDecoding(range=(0, 4095)))
        assert found.pixels[:, :, 0].tolist() == [[0, 0, 0, 6, 128, 255, 255, 255]] and found.highest == 65535
        found = images.decode(data, FolderDecoding(range=(100, 355)))
        assert found.pixels[:, :, 0].tolist() == [[0, 0, 0, 0, 255, 255, 255, 255]]
    # Of 256 values on 256 levels each has its own.
    ramp = np.arange(300, 556, dtype=np.uint16)[None]
    assert images.decode(encoded(ramp), FolderDecoding(range=(300, 555))).pixels[0, :, 0].tolist() == list(range(256))
    dark = images.decode(encoded((values % 4096).astype(np.uint16)))
    assert dark.pixels.max() == 16 and dark.highest == 4095
    plain = noise(4, 4, 1)
    found = images.decode(encoded(plain), FolderDecoding(range=(0, 4095)))
    assert (found.pixels[:, :, 0] == plain).all() and found.highest is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_file_that_is_cut_at_its_end_gives_the_image_as_far_as_it_goes(kind):
    rows = np.linspace(0, 255, 64).astype(np.uint8)
    pixels = np.stack([np.broadcast_to(rows[:, None], (64, 64)), noise(64, 64, 1), noise(64, 64, 1)], axis=2)
    data = encoded(pixels, kind)
    whole = images.decode(data, FolderDecoding(truncated=True))
    assert whole.cut is None
    half = data[: len(data) // 2]
    with pytest.raises(images.Unreadable, match="is broken .*truncated"):
        images.decode(half)
    found = images.decode(half, FolderDecoding(truncated=True))
    assert found.cut is not None and "truncated" in found.cut and found.pixels.shape == (64, 64, 3)
    same = (found.pixels == whole.pixels).all(axis=(1, 2))
    assert same[:12].all() and not same[48:].any()
    if kind == "JPEG":  # less than the end mark: all of it is there
        assert (images.decode(data[:-2], FolderDecoding(truncated=True)).pixels == whole.pixels).all()


def test_what_is_not_cut_but_no_image_stays_refused():
    lenient = FolderDecoding(truncated=True)
    for name in ("empty.png", "text.png", "bomb.png", "float.tif"):
        with pytest.raises(images.Unreadable, match=BROKEN[name][1]):
            images.decode(BROKEN[name][0], lenient)
    with pytest.raises(images.Unreadable):
        images.decode(encoded(noise(20, 20), "GIF")[:200], lenient)


def test_a_thread_that_takes_cut_files_makes_no_other_take_them():
    data = encoded(noise(200, 200), "JPEG")[:-300]

    def taken(lenient: bool) -> bool:
        try:
            images.decode(data, FolderDecoding(truncated=lenient))
        except images.Unreadable:
            return False
        return True

    turns = [bool(turn % 2) for turn in range(200)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(taken, turns)) == turns


def test_larger_images_are_an_opt_in():
    data = encoded(np.zeros((30, 40), np.uint8))
    for use in (
        lambda limit: images.header(io.BytesIO(data), len(data), limit),
        lambda limit: images.decode(data, FolderDecoding(max_pixels=limit)),
    ):
        use(1200)
        with pytest.raises(images.Unreadable, match="has more than 1199 pixels: `max_pixels` takes more"):
            use(1199)
    huge = BROKEN["bomb.png"][0]  # 3.6e9 pixels
    with pytest.raises(images.Unreadable, match="has more than 3599999999 pixels"):
        images.header(io.BytesIO(huge), len(huge), 3_599_999_999)
    assert images.header(io.BytesIO(huge), len(huge), 3_600_000_000)[:2] == (60000, 60000)
    with pytest.raises(images.Unreadable, match="has more than 89478485 pixels"):
        images.header(io.BytesIO(huge), len(huge))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_over_white(mode):
    pixels = noise(6, 6, 4) if mode == "RGBA" else noise(6, 6, 3)[:, :, :2]
    pixels[0, 0, -1], pixels[0, 1, -1] = 0, 255
    found = images.decode(encoded(Image.fromarray(np.ascontiguousarray(pixels)))).pixels
    colour, alpha = pixels[:, :, :-1].astype(float), pixels[:, :, -1:] / 255.0
    expected = colour * alpha + 255 * (1 - alpha)
    assert found.shape == (6, 6, 3 if mode == "RGBA" else 1) and np.abs(found - expected).max() <= 0.5 + 1e-9
    assert (found[0, 0] == 255).all() and (found[0, 1] == pixels[0, 1, :-1]).all()


def test_large_images_are_the_same_as_small_ones(monkeypatch):
    """What is computed in strips of some rows."""
    files = [encoded(Image.fromarray(noise(50, 9, 4))), encoded(RNG.integers(0, 65536, (50, 9), np.uint16))]
    whole = [images.decode(data).pixels for data in files]
    for strip in (1, 9, 70):
        monkeypatch.setattr(images, "STRIP", strip)
        for data, pixels in zip(files, whole, strict=True):
            assert (images.decode(data).pixels == pixels).all()


def test_a_transparent_palette_lies_over_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    for data in (encoded(image, transparency=0), encoded(image, "GIF", transparency=0)):
        assert images.decode(data).pixels.tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_cmyk_jpeg_is_not_inverted():
    # Pillow writes CMYK JPEGs as Adobe does, inverted; white paper must come out white, and full cyan as cyan.
    ink = np.zeros((16, 32, 4), np.uint8)
    ink[:, 16:, 0] = 255
    found = images.decode(encoded(Image.fromarray(ink, "CMYK"), "JPEG", quality=100)).pixels.astype(int)
    assert np.abs(found[:, :14] - 255).max() < 6 and np.abs(found[:, 18:] - [0, 255, 255]).max() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_exif_orientation_is_applied(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    data = encoded(np.kron(noise(2, 3), np.ones((8, 8, 1), np.uint8)), kind, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert expected.shape[:2] == ((24, 16) if orientation >= 5 else (16, 24))
    assert (images.decode(data).pixels == expected).all()
    assert images.header(io.BytesIO(data), len(data)) == (*expected.shape[:2], False)


def test_exif_that_cannot_be_read_changes_nothing():
    pixels = noise(5, 7)
    data = encoded(pixels, exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xf0 broken")
    assert (images.decode(data).pixels == pixels).all() and images.header(io.BytesIO(data), len(data)) == (5, 7, False)


def test_the_header_of_a_png_is_read_without_decoding_it(monkeypatch):
    data, decoded = encoded(noise(64, 32)), []
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: decoded.append(self))
    assert images.header(io.BytesIO(data), len(data)) == (64, 32, False) and not decoded


def test_a_ppm_may_have_sixteen_bits():
    data = b"P5 2 1 65535\n" + np.array([257 * 3, 65535], ">u2").tobytes()
    assert images.decode(data).pixels.tolist() == [[[3], [255]]]


def test_a_file_that_is_too_large_is_not_read():
    with pytest.raises(images.Unreadable, match="is larger than 512 MiB"):
        images.header(io.BytesIO(encoded(noise())), (1 << 29) + 1)


def test_an_animation_gives_its_first_frame():
    first, second = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    for kind, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})):
        data = encoded(first, kind, save_all=True, append_images=[second], **options)
        assert (images.decode(data).pixels == [255, 0, 0]).all(), kind


@pytest.mark.parametrize("name", BROKEN)
def test_what_gives_no_image_says_why(name):
    data, reason = BROKEN[name]
    with pytest.raises(images.Unreadable, match=reason):
        images.decode(data)


def test_no_cut_or_changed_file_raises_anything_else():
    rng = random.Random(0)
    whole = [
        encoded(noise(20, 20)),
        encoded(noise(20, 20), "JPEG"),
        encoded(noise(20, 20), "GIF"),
        encoded(noise(), "TIFF"),
    ]
    for turn in range(400):
        data = bytearray(whole[turn % 4])
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        data = data[: rng.randint(1, len(data))]
        for use in (images.decode, lambda given: images.header(io.BytesIO(given), len(given))):
            with contextlib.suppress(images.Unreadable):
                use(bytes(data))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (POINTER, "is a Git LFS pointer and not an image: run `git lfs pull` in its repository"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "is HEIC, which is not read: convert it to JPEG or PNG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0heic" + bytes(99), "is HEIC, which is not read: convert it to JPEG or PNG"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "is a broken AVIF"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "is a camera's raw file, which is not read: convert it to JPEG or PNG"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "is a video and not an image"),
        (bytes(128) + b"DICM" + bytes(9), "is DICOM, which is not read: convert it to PNG"),
        (b"%PDF-1.7\n", "is a PDF and not an image: export its pages as PNG"),
        (b"\xef\xbb\xbf\n<!DOCTYPE HTML><html>404", "is a web page and not an image: download it again"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG drawing, which is not read: export it as PNG"),
        (b"\x93NUMPY\x01\0", "is a NumPy array, which is not read: save it as PNG"),
        (b"hello", "is not an image"),
        (b"\x89PN", "is not an image"),
    ],
)
def test_what_people_take_for_images_is_named(data, reason):
    with pytest.raises(images.Unreadable) as at_header:
        images.header(io.BytesIO(data), len(data))
    with pytest.raises(images.Unreadable) as at_decoding:
        images.decode(data)
    assert str(at_header.value) == str(at_decoding.value) == reason
