"""The stand-ins of the natural tasks and of the upstream set: pixels never change; colour does not give the class."""

import hashlib
import importlib

import numpy as np
import pytest

from vtabflow.runtime.files import seed_of

# Module -> (task, classes, SHA-256 of examples 0 to 3 of the train part at 32 px). A new digest means other images:
# every result that was made from the old ones is then of another study.
MODULES = {
    "caltech101": ("caltech101-standin", 20, "15b187ea9e048dcd"),
    "cifar100": ("cifar100-standin", 20, "0a845ee535d589e4"),
    "dtd": ("dtd-standin", 14, "4224a5bf90a910e6"),
    "flowers": ("oxford-flowers102-standin", 16, "8e10e5e8a1da4d5f"),
    "pets": ("oxford-iiit-pet-standin", 14, "2f39064b5f44d8d8"),
    "sun397": ("sun397-standin", 14, "2d74155458372213"),
    "svhn": ("svhn-standin", 10, "c231096a2e097c37"),
    "upstream": ("upstream-standin", 32, "56c9b73c023a6e2b"),
}
NAMES = sorted(MODULES)


def examples(name: str, count: int, size: int, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    draw, task = importlib.import_module(f"vtabflow.standins.{name}").draw, MODULES[name][0]
    seeds = [seed_of("procedural", task, 0, split, index) for index in range(count)]
    pairs = [draw(np.random.default_rng(seed), size) for seed in seeds]
    return np.stack([image for image, _ in pairs]), np.array([labels[task] for _, labels in pairs])


@pytest.fixture(scope="module")
def drawn() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {name: examples(name, 600, 16) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_declares_its_task(name):
    module = importlib.import_module(f"vtabflow.standins.{name}")
    assert {MODULES[name][0]: MODULES[name][1]} == module.TASKS


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_bytes(name):
    first, labels = examples(name, 4, 32)
    second, again = examples(name, 4, 32)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(labels, again)
    assert hashlib.sha256(first.tobytes() + labels.astype("<i8").tobytes()).hexdigest()[:16] == MODULES[name][2]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [16, 21, 32, 64])
def test_any_size(name, size):
    images, labels = examples(name, 12, size)
    assert images.shape == (12, size, size, 3)
    assert images.dtype == np.uint8
    assert labels.min() >= 0
    assert labels.max() < MODULES[name][1]


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_the_same_picture_at_every_size(name):
    """Same class, and the small image is much like the large one averaged down (grain and fine edges differ)."""
    small, labels = examples(name, 30, 32)
    large, same = examples(name, 30, 64)
    np.testing.assert_array_equal(labels, same)
    averaged = large.reshape(30, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    likeness = [
        np.corrcoef(one.mean(axis=2).ravel(), two.mean(axis=2).ravel())[0, 1]
        for one, two in zip(averaged, small, strict=True)
    ]
    assert np.median(likeness) > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_pictures_differ_and_show_something(drawn, name):
    images, _ = drawn[name]
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)
    assert images.std(axis=(1, 2)).max(axis=1).min() > 2  # no blank image: some channel varies by more than 2 of 255
    assert 50 < images.mean() < 205


@pytest.mark.parametrize("name", NAMES)
def test_classes_are_equally_likely(drawn, name):
    """Chi-square of the counts: beyond mean + 5 standard deviations once in a million runs of an even draw."""
    labels, classes = drawn[name][1], MODULES[name][1]
    counts = np.bincount(labels, minlength=classes)
    assert counts.min() > 0
    expected = len(labels) / classes
    assert ((counts - expected) ** 2 / expected).sum() < classes - 1 + 5 * np.sqrt(2 * (classes - 1))


@pytest.mark.parametrize("name", NAMES)
def test_mean_colour_does_not_give_the_class(drawn, name):
    """The nearest class mean in colour, fitted on half of the images, is right on fewer than 30 % of the rest.

    Flowers, pets, views and sea animals have colours that hint at the class, as in life; nets reach 70 % and more.
    """
    images, labels = drawn[name]
    colour = images.mean(axis=(1, 2))
    half, classes = len(labels) // 2, MODULES[name][1]
    centres = np.stack([colour[:half][labels[:half] == c].mean(axis=0) for c in range(classes)])
    guess = np.linalg.norm(colour[half:, None] - centres, axis=2).argmin(axis=1)
    assert (guess == labels[half:]).mean() < 0.30


def test_upstream_shares_no_class_with_a_task():
    from vtabflow.standins import caltech101, cifar100, dtd, flowers, pets, sun397, upstream

    def names(*groups) -> set[str]:
        return {getattr(item, "__name__", item).strip("_").rstrip("s") for group in groups for item in group}

    tasks = names(caltech101.OBJECTS, cifar100.THINGS, dtd.TEXTURES, flowers.SPECIES, pets.BREEDS, sun397.SCENES)
    mine = names(*(group for _, group in upstream.FAMILIES))
    assert len(mine) == MODULES["upstream"][1]
    assert not mine & tasks
