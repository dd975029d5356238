"""Images that look the same: which are found, and that they stay in one split."""

import io
import random

import numpy as np
import pytest
from PIL import Image
from small_folders import encoded, prepared, write_files

from vtabflow.contracts.specs import FolderDecoding
from vtabflow.prepare import store
from vtabflow.prepare.folders.near_copies import BITS, COSINES, Look, clusters, look

NEAR = FolderDecoding(near_copies=True)


def scene(seed: int, side: int = 96) -> Image.Image:
    """Smooth random colours, as photographs are smooth."""
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def seen(image: Image.Image) -> Look:
    found = look(np.asarray(image.convert("RGB")))
    assert found is not None
    return found


def distance(one: Image.Image, two: Image.Image) -> int:
    return (seen(one).hash ^ seen(two).hash).bit_count()


def saved(image: Image.Image, quality: int) -> Image.Image:
    return Image.open(io.BytesIO(encoded(image, "JPEG", quality=quality)))


def test_the_hash_is_that_of_the_definition():
    """The cosine transform of scipy, in floating point, of the same 32 x 32 pixels."""
    from scipy.fft import dct

    for seed in range(5):
        grey = np.asarray(scene(seed).convert("L").resize((32, 32), Image.Resampling.LANCZOS)).astype(float)
        low = dct(dct(grey, axis=0), axis=1)[:8, :8].reshape(-1)
        bits = "".join(str(int(bit)) for bit in low > np.median(low))
        assert (seen(scene(seed)).hash ^ int(bits, 2)).bit_count() <= 1
    assert COSINES[0].tolist() == [4096] * 32 and COSINES.dtype == np.int64


def test_resized_and_encoded_images_are_near_copies_and_others_are_not():
    for seed in range(20):
        image = scene(seed)
        for side in (48, 72, 144, 192):
            assert distance(image, image.resize((side, side), Image.Resampling.BICUBIC)) <= BITS
        for quality in (50, 75, 95):
            assert distance(image, saved(image, quality)) <= BITS
        assert distance(image, saved(image.resize((60, 60)), 60)) <= BITS
    assert min(distance(scene(a), scene(b)) for a in range(20) for b in range(a)) > 2 * BITS


def test_colours_count_and_images_without_structure_have_no_look():
    pixels = np.asarray(scene(0)).astype(int)
    red = np.add(pixels, [20, -10, 0]).clip(0, 255).astype(np.uint8)
    assert distance(scene(0), Image.fromarray(red)) <= BITS
    assert clusters({"0": seen(scene(0)), "1": seen(Image.fromarray(red))}) == {}
    assert look(np.full((40, 40, 3), 77, np.uint8)) is None and look(np.full((40, 40, 1), 77, np.uint8)) is None
    grey = np.asarray(scene(0).convert("L"))
    assert look(grey[:, :, None]) == look(np.repeat(grey[:, :, None], 3, 2))


def test_clusters_are_the_connected_components():
    """Compared with all pairs; some hashes are there many times, and chains are longer than BITS."""
    rng = random.Random(0)
    for turn in range(30):
        hashes = [rng.getrandbits(64) for _ in range(12)]
        for _ in range(40):
            hashes.append(rng.choice(hashes) ^ sum(1 << rng.randrange(64) for _ in range(rng.randrange(6))) % 2**64)
        looks = {f"{place:03}": Look(value % 2**64, (0.0, 0.0, 0.0)) for place, value in enumerate(hashes)}
        names = list(looks)
        rng.shuffle(names)
        cluster = {name: {name} for name in names}
        for a in names:
            for b in names:
                if (looks[a].hash ^ looks[b].hash).bit_count() <= BITS and cluster[a] is not cluster[b]:
                    joined = cluster[a] | cluster[b]
                    cluster.update(dict.fromkeys(joined, joined))
        expected = {name: min(members) for name, members in cluster.items() if len(members) > 1}
        assert clusters({name: looks[name] for name in names}) == expected, turn
    assert clusters({}) == {}


def test_a_picture_that_is_there_many_times_takes_no_time():
    looks = {f"{place:05}": Look(7, (0.0, 0.0, 0.0)) for place in range(20_000)}
    assert set(clusters(looks).values()) == {"00000"}


@pytest.fixture
def pictures(tmp_path):
    """Twelve pictures of each of two classes, each as PNG, as JPEG and smaller."""
    files = {}
    for number in range(24):
        image = scene(number)
        name = f"{'ab'[number % 2]}/{number}"
        files[f"{name}.png"] = encoded(image)
        files[f"{name}.jpg"] = encoded(image, "JPEG", quality=70)
        files[f"{name}_small.png"] = encoded(image.resize((60, 60), Image.Resampling.BICUBIC))
    return files


def number_of(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[0].partition("_")[0]


def test_near_copies_stay_in_one_split(tmp_path, pictures):
    path = write_files(tmp_path / "in", pictures)
    plain = prepared(path, tmp_path / "0")
    near = prepared(path, tmp_path / "1", decoding=NEAR)
    for opened, apart in ((plain, False), (near, True)):
        numbers = {split: {number_of(name) for name in opened.ids(split)} for split in store.SPLITS}
        assert (sum(map(len, numbers.values())) == 24) == apart
    assert near.manifest.counts == {"train": 48, "val": 12, "test": 12}
    said = {remark.kind: remark.text for remark in near.manifest.remarks}
    assert said["near-copies"] == ("72 of 72 images are near copies, such as a/0.jpg; near copies stay in one split")
    assert near.manifest.layout == "2 classes, 72 images; train 48, val 12, test 12, split here, seeded"


def test_near_copies_across_given_splits_are_said(tmp_path, pictures):
    files = {}
    for name, data in pictures.items():
        number = int(number_of(name))
        split = ("train", "test", "val")[number % 3]
        files[f"{split}/{name}"] = data
    del files["train/a/0_small.png"], files["train/b/3.jpg"]
    files["test/a/moved.png"], files["test/b/moved.jpg"] = pictures["a/0_small.png"], pictures["b/3.jpg"]
    opened = prepared(write_files(tmp_path / "in", files), tmp_path, decoding=NEAR)
    (remark,) = [remark for remark in opened.manifest.remarks if "train" in remark.kind]
    assert remark.kind == "test-looks-like-train" and remark.text.startswith(
        "2 of 26 test images look like images of train"
    )
    assert {example.partition(" ")[0] for example in remark.examples} == {"test/a/moved.png", "test/b/moved.jpg"}
