"""Source `procedural`: a stand-in's images, drawn by a renderer of this package from a seed."""

import importlib
import importlib.util
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from vtabflow.errors import RunError, UserError
from vtabflow.prepare.store import SPLITS, create_store, rows_needed
from vtabflow.runtime.files import seed_of


def make(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the store of `spec` (StoreSpec with source "procedural") at the target size and return its manifest.

    Example i of a split is drawn from seed_of("procedural", dataset, seed, split, i) alone: counts change no example.

    Raises:
        UserError: a renderer or a task of it that does not exist.
        RunError: no space or permission for the store, or a renderer that draws outside its own contract.
    """
    settings, size = spec["settings"], spec["image"]["size"]
    name = f"vtabflow.standins.{settings['module']}"
    if not settings["module"].isidentifier() or importlib.util.find_spec(name) is None:
        raise UserError(f"dataset {spec['dataset']}: there is no renderer {settings['module']!r} in prepare/procedural")
    renderer = importlib.import_module(name)
    for task in spec["tasks"]:
        if task not in renderer.TASKS:
            known = ", ".join(renderer.TASKS)
            raise UserError(f"dataset {spec['dataset']}: {settings['module']} has no task {task}: take one of {known}")
    labels: dict[str, dict[str, np.ndarray]] = {task: {} for task in spec["tasks"]}
    ids: dict[str, list[str]] = {}
    channels = _draw(renderer, spec, "train", 0)[0].shape[2]
    with create_store(spec) as new:
        for split in SPLITS:
            count = rows_needed(spec, split, settings["counts"][split])
            images = new.images(split, (count, size, size, channels))
            for task in labels:
                labels[task][split] = np.zeros(count, np.int64)
            begun = time.perf_counter()
            for index in range(count):
                images[index], classes = _draw(renderer, spec, split, index)
                for task in labels:
                    labels[task][split][index] = classes[task]
            ids[split] = [f"{split}-{index}" for index in range(count)]
            rate = count / max(time.perf_counter() - begun, 1e-9)
            print(f"{spec['dataset']}: {split}, {count} images, {rate:.0f} images/s", flush=True)
        return new.finish(labels, ids, {task: renderer.TASKS[task] for task in spec["tasks"]})


def _draw(renderer: Any, spec: Mapping[str, Any], split: str, index: int) -> tuple[np.ndarray, dict[str, int]]:
    seed, size = seed_of("procedural", spec["dataset"], spec["settings"]["seed"], split, index), spec["image"]["size"]
    image, classes = renderer.draw(np.random.default_rng(seed), size)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[:2] != (size, size):
        drawn = f"{renderer.__name__} drew {image.dtype} {image.shape} for {split} {index}"
        raise RunError(f"{drawn}, not uint8 ({size}, {size}, channels): mend the renderer")
    return image, classes
