"""Source `procedural`: a stand-in's images, drawn by a renderer of this package from a seed."""

import importlib
import importlib.util
from typing import Any

import numpy as np

from vtabflow.contracts.results import Manifest
from vtabflow.contracts.specs import ImageSpec, StandinSettings, StoreSpec
from vtabflow.errors import RunError, UserError
from vtabflow.prepare.store import SPLITS, create_store, rows_needed
from vtabflow.runtime.files import seed_of
from vtabflow.runtime.progress import Progress


def make(spec: StoreSpec) -> Manifest:
    """Draw the store of `spec` (source "procedural") at the target size and return its manifest.

    Example i of a split is drawn from seed_of("procedural", dataset, seed, split, i) alone, so the counts change no
    example.

    Raises:
        UserError: a renderer or a task of it that does not exist.
        RunError: no space or permission for the store, or a renderer whose images or labels are not as they should be.
    """
    settings, image = spec.settings, spec.image
    assert isinstance(settings, StandinSettings) and isinstance(image, ImageSpec)
    name, size = f"vtabflow.standins.{settings.module}", image.size
    if not settings.module.isidentifier() or importlib.util.find_spec(name) is None:
        raise UserError(f"dataset {spec.dataset}: there is no renderer {settings.module!r} in vtabflow/standins")
    renderer = importlib.import_module(name)
    for task in spec.tasks:
        if task not in renderer.TASKS:
            known = ", ".join(renderer.TASKS)
            raise UserError(f"dataset {spec.dataset}: {settings.module} has no task {task}: use one of {known}")

    def draw(split: str, index: int) -> tuple[np.ndarray, dict[str, int]]:
        seed = seed_of("procedural", spec.dataset, settings.seed, split, index)
        return _draw(renderer, seed, size, f"{split} {index}")

    labels: dict[str, dict[str, np.ndarray]] = {task: {} for task in spec.tasks}
    ids: dict[str, list[str]] = {}
    channels = draw("train", 0)[0].shape[2]
    with create_store(spec) as new:
        for split in SPLITS:
            count = rows_needed(spec, split, settings.counts[split])
            images = new.images(split, (count, size, size, channels))
            for task in labels:
                labels[task][split] = np.zeros(count, np.int64)
            progress = Progress(f"{spec.dataset}: {split}", count)
            for index in range(count):
                images[index], classes = draw(split, index)
                for task in labels:
                    labels[task][split][index] = classes[task]
                progress.add(1)
            ids[split] = [f"{split}-{index}" for index in range(count)]
            progress.end()
        return new.finish(labels, ids, {task: renderer.TASKS[task] for task in spec.tasks})


def _draw(renderer: Any, seed: int, size: int, where: str) -> tuple[np.ndarray, dict[str, int]]:
    """One image, uint8 (size, size, C), and the class of each task."""
    image, classes = renderer.draw(np.random.default_rng(seed), size)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[:2] != (size, size):
        drawn = f"{renderer.__name__} drew {image.dtype} {image.shape} for {where}"
        raise RunError(f"{drawn}, not uint8 ({size}, {size}, channels): fix the renderer")
    return image, classes
