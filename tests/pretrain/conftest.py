"""A small labelled upstream, made once with the project's own store."""

import numpy as np
import pytest
import torch
from settings_of_tests import COMMON, with_settings
from small_methods import SMALL

from vtabflow.contracts.specs import (
    EncoderCode,
    EncoderSpec,
    FolderSettings,
    ImageSpec,
    SplitFractions,
    StoreSpec,
    SubsetDraw,
    UpstreamSpec,
)
from vtabflow.contracts.typed_json import from_json, to_json
from vtabflow.planning import catalogue
from vtabflow.prepare import store

SIZE, CLASSES = 32, 4


def arrays(n, seed):
    """n images of noise with a bright square whose corner is the class."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (n, SIZE, SIZE, 3), dtype=np.uint8)
    labels = np.arange(n) % CLASSES
    for image, label in zip(images, labels, strict=True):
        y, x = divmod(int(label), 2)
        image[16 * y : 16 * y + 12, 16 * x : 16 * x + 12] += 120
    return images, labels


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def upstream_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("upstream")
    counts = {"train": 120, "val": 40, "test": 8}
    parts = {split: arrays(n, i) for i, (split, n) in enumerate(counts.items())}
    spec = StoreSpec(
        key="0",
        dataset="corners",
        folder=str(root / "store"),
        receipt=str(root / "store.json"),
        manifest=str(root / "manifest.json"),
        source="folder",
        settings=FolderSettings("corners", "refuse", SplitFractions(0, (0.6, 0.2, 0.2)), "upstream"),
        image=ImageSpec(SIZE, "antialias"),
        rows="all",
        tasks=("corners",),
        classes={"corners": CLASSES},
        identity={},
        code="",
    )
    store.write(
        spec,
        {split: images for split, (images, _) in parts.items()},
        {"corners": {split: labels for split, (_, labels) in parts.items()}},
        {split: [f"{split}-{i}" for i in range(n)] for split, n in counts.items()},
        {"corners": CLASSES},
    )
    return root / "store"


@pytest.fixture
def make_spec(tmp_path, upstream_folder):
    """A function that makes EncoderSpecs under tmp_path; keyword arguments are settings."""

    def make(method="rotation", key="k", seed=0, **settings):
        info = catalogue.info(method)
        trained = info.source == "trained"
        upstream = UpstreamSpec(
            dataset="corners",
            folder=str(upstream_folder),
            receipt="",
            task="corners",
            classes=CLASSES,
            subset=SubsetDraw(0.2, 0) if "subset" in info.streams.values() else None,
        )
        spec = EncoderSpec(
            key=key,
            method=method,
            display=info.display,
            family=info.family,
            source=info.source,
            folder=str(tmp_path / "encoders" / key),
            receipt=str(tmp_path / "encoders" / f"{key}.json"),
            scratch=str(tmp_path / "scratch" / key),
            network=info.network("resnet-small"),
            image_size=SIZE,
            seed=seed,
            gpus=1,
            settings=COMMON if trained else None,
            upstream=upstream if trained else None,
            identity={},
            code=EncoderCode("c", "c"),
        )
        if trained:
            spec = with_settings(spec, **{**info.defaults, **info.settings, **SMALL.get(method, {}), **settings})
        return from_json(EncoderSpec, to_json(spec), "spec")  # as a job reads it

    return make
