"""A small labelled upstream, made once with the project's own store."""

import json

import numpy as np
import pytest
import torch
from method_place import SMALL

from vtabflow.planning import catalogue
from vtabflow.prepare import store

SIZE, CLASSES = 32, 4


def arrays(n, seed):
    """n pictures of noise with a bright square whose corner tells the class."""
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
    spec = {
        "step": "prepare",
        "key": "0",
        "dataset": "corners",
        "folder": str(root / "store"),
        "receipt": str(root / "store.json"),
        "manifest": str(root / "manifest.json"),
        "source": "folder",
        "settings": {},
        "image": {"size": SIZE, "resize": "antialias"},
        "rows": "all",
        "tasks": ["corners"],
        "identity": {},
        "code": "",
    }
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
        common = {
            "steps": 12,
            "batch": 16,
            "optimiser": "sgd",
            "learning_rate": 0.05,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "warmup": 0.1,
            "decay": "steps",
            "decay_at": [0.5, 0.8],
            "decay_factor": 0.1,
            "divergence": 100.0,
            "precision": "auto",
        }
        subset = {"fraction": 0.2, "seed": 0} if "subset" in info.streams.values() else None
        upstream = {"dataset": "corners", "folder": str(upstream_folder), "task": "corners", "classes": CLASSES}
        spec = {
            "step": "pretrain",
            "key": key,
            "method": method,
            "display": info.display,
            "family": info.family,
            "folder": str(tmp_path / "encoders" / key),
            "receipt": str(tmp_path / "encoders" / f"{key}.json"),
            "network": info.network("resnet-small"),
            "image_size": SIZE,
            "seed": seed,
            "settings": {**common, **info.defaults, **info.settings, **SMALL.get(method, {}), **settings},
            "upstream": {**upstream, "subset": subset} if info.streams else None,
            "scratch": str(tmp_path / "scratch" / key),
            "identity": {},
            "code": "c",
        }
        return json.loads(json.dumps(spec))  # as a job reads it

    return make
