"""A small store, encoders and cells on the disk, all real, written by hand."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from vtabflow.networks.registry import NETWORKS, build
from vtabflow.prepare import store
from vtabflow.runtime.files import read_json, write_json

NETWORK = "resnet-small"
COUNTS = {"train": 96, "val": 40, "test": 56}
TASKS = {"colour-standin": 3, "side-standin": 2}


def make_store(
    folder: str,
    counts: dict[str, int],
    channels: int,
    size: int = 16,
    rows: str = "all",
    test_shift: int = 0,
    poison=(10**9, 10**9),
) -> None:
    """Noise whose brightness says the colour class and whose brighter half says the side; noisy enough to be missed."""
    arrays, labels, ids = {}, {task: {} for task in TASKS}, {}
    for split, count in counts.items():
        rng = np.random.default_rng(len(split) * 1000 + count)
        colour, side = rng.integers(0, 3, count), rng.integers(0, 2, count)
        images = rng.normal(90.0, 45.0, (count, size, size, channels)) + 25.0 * colour[:, None, None, None]
        images[side == 1, :, : size // 2] += 12.0
        if split == "test":
            colour = (colour + test_shift) % 3
        else:
            images[poison[split == "val"] :] = 0.0
        arrays[split] = images.clip(0, 255).astype(np.uint8)
        labels["colour-standin"][split], labels["side-standin"][split] = colour, side
        ids[split] = [f"{split}-{i}" for i in range(count)]
    spec = {
        "dataset": "toy",
        "folder": folder,
        "manifest": folder.replace("stores", "manifests") + ".json",
        "source": "procedural",
        "settings": {},
        "image": {"size": size, "resize": "legacy"},
        "rows": rows,
    }
    store.write(spec, arrays, labels, ids, TASKS)


def make_encoder(method: str, seed: int, seeded: bool = False, status: str = "ok", network: str = NETWORK) -> None:
    folder = Path(f"results/encoders/{method}/k")
    folder.mkdir(parents=True)
    save_file(build(NETWORK, seed).state_dict(), folder / "encoder.safetensors")
    seen = {"size": 16, "low": -1.0, "high": 1.0, "mean": None, "std": None}
    row = {"method": method, "network": network, "features": NETWORKS[network]["features"], "input": seen}
    write_json(folder / "card.json", {**row, "seeded": seeded, "status": status, "reason": None})


def make_cell(
    method: str = "a", task: str = "colour-standin", budget: str = "full", seed: int = 0, **settings: Any
) -> dict[str, Any]:
    defaults = {
        "evaluation": "finetune",
        "learning_rates": [0.1, 0.01],
        "steps": [3, 6],
        "batch": 16,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "warmup": 0.0,
        "decay_at": [1 / 3, 2 / 3],
        "decay_factor": 0.1,
        "resize": "legacy",
        "precision": "auto",
    }
    key = f"{method}-{task}-{budget}-{seed}-{settings.get('evaluation', 'finetune')}"
    return {
        "key": key,
        "method": method,
        "task": task,
        "budget": budget,
        "seed": seed,
        "source": "procedural",
        "classes": TASKS[task],
        "image_size": 16,
        "folder": f"results/scores/{method}/{task}/{budget}/{key}",
        "scratch": f"scratch/finetune/{key}",
        "encoder": {"key": "k", "folder": f"results/encoders/{method}/k"},
        "store": {"dataset": "toy", "key": "k", "folder": "data/stores/toy/k"},
        "settings": {**defaults, **settings},
        "identity": {},
        "code": "finetune 1",
    }


def make_pack(*cells: dict[str, Any]) -> dict[str, Any]:
    return {"step": "finetune", "pack": "p", "receipt": "results/packs/p.json", "cells": list(cells)}


def result(cell: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """score.json and the arrays of predictions.npz."""
    score = read_json(f"{cell['folder']}/score.json")
    with np.load(f"{cell['folder']}/predictions.npz", allow_pickle=False) as arrays:
        return score, dict(arrays)
