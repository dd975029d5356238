"""TFDS folders that are written by TFDS itself from drawn images, in either format, and specs that read them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from miniatures.drawing import drawn, jpeg
from miniatures.place import Places
from vtabflow.contracts.specs import ImageSpec, StoreSpec, TfdsSettings
from vtabflow.prepare.tfds.datasets import datasets

Keyed = Iterable[tuple[Any, dict[str, Any]]]


def write_folder(
    root: Path, dataset: str, splits: dict[str, Keyed], form: str = "array_record", shards: int = 1, version: str = ""
) -> Path:
    """The folder of a dataset's records: splits[name] yields (key, example). Features are the builder's own."""
    import tensorflow_datasets as tfds

    known = datasets()[dataset]
    # The builder is asked for its features; it writes nothing.
    described = tfds.builder_cls(known.builder)(data_dir=root / "none", config=known.config).info.features
    tfds.disable_progress_bar()
    builder = tfds.dataset_builders.store_as_tfds_dataset(
        name=known.builder,
        version=version or known.version,
        config=known.config,
        features=described,
        split_datasets={name: list(examples) for name, examples in splits.items()},
        data_dir=root,
        file_format=form,
        download_config=tfds.download.DownloadConfig(num_shards=shards, try_download_gcs=False),
    )
    return Path(builder.data_dir)


def textures(counts: dict[str, int], seed: int = 0) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """DTD's kind: JPEGs of several sizes with a file name, which is the key, and one of 47 classes."""
    rng = np.random.default_rng(seed)
    found = {}
    for split, count in counts.items():
        found[split] = []
        for i in range(count):
            name, size = f"{split}/{i:04d}.jpg", rng.integers(20, 60, 2)
            example = {"file_name": name, "image": jpeg(drawn(rng, *size)), "label": i % 47}
            found[split].append((name, example))
    return found


def spec_for(dataset: str, places: Places, root: Path, rows: str = "all", size: int = 32, **image: str) -> StoreSpec:
    """The spec of a dataset's store in `root`."""
    known = datasets()[dataset]
    classes = {task: each.classes for task, each in known.tasks.items()}
    return StoreSpec(
        key=rows,
        dataset=dataset,
        folder=str(root / "store"),
        receipt=str(root / "receipt.json"),
        manifest=str(root / "manifest.json"),
        source="tfds",
        settings=TfdsSettings(known.builder, known.config, known.version, places.digests(), "any"),
        image=ImageSpec(**{"size": size, "resize": "legacy", **image}),
        rows=rows,
        tasks=tuple(classes),
        classes=classes,
        identity={},
        code="",
        places=places.spec(),
    )
