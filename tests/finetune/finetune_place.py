"""A small store, encoders and cells on the disk, all real, written by this file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from encoder_cards import encoder_card
from vtabflow.contracts.specs import (
    CellSpec,
    EncoderRef,
    FinetuneSettings,
    ImageSpec,
    JobSpec,
    StandinSettings,
    StoreRef,
    StoreSpec,
)
from vtabflow.contracts.typed_json import to_json
from vtabflow.networks.registry import NETWORKS, build
from vtabflow.prepare import store
from vtabflow.runtime.files import read_json, sha256, write_json

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
    spec = StoreSpec(
        key="k",
        dataset="toy",
        folder=folder,
        receipt=f"{folder}.receipt.json",
        manifest=folder.replace("stores", "manifests") + ".json",
        source="procedural",
        settings=StandinSettings("toy", 0, counts),
        image=ImageSpec(size, "legacy"),
        rows=rows,
        tasks=tuple(TASKS),
        classes=TASKS,
        identity={},
        code="",
    )
    store.write(spec, arrays, labels, ids, TASKS)


def make_encoder(method: str, seed: int, seeded: bool = False, status: str = "ok", network: str = NETWORK) -> None:
    folder = Path(f"results/encoders/{method}/k")
    folder.mkdir(parents=True)
    weights = folder / "encoder.safetensors"
    save_file(build(network, seed).state_dict(), weights)
    write_card(method, seeded=seeded, status=status, network=network, features=NETWORKS[network]["features"])


def write_card(method: str, **changes: Any) -> None:
    """card.json of an encoder whose weights are written."""
    folder = Path(f"results/encoders/{method}/k")
    written = sha256(folder / "encoder.safetensors")
    card = encoder_card(method=method, display=method, sha256={"encoder.safetensors": written}, **changes)
    write_json(folder / "card.json", to_json(card))


def make_cell(
    method: str = "a", task: str = "colour-standin", budget: str = "full", seed: int = 0, **settings: Any
) -> CellSpec:
    own = FinetuneSettings(
        evaluation="finetune",
        learning_rates=(0.1, 0.01),
        steps=(3, 6),
        batch=16,
        momentum=0.9,
        weight_decay=0.0,
        warmup=0.0,
        decay_at=(1 / 3, 2 / 3),
        decay_factor=0.1,
        precision="auto",
        resize="legacy",
    )
    own = replace(own, **{name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()})
    key = f"{method}-{task}-{budget}-{seed}-{own.evaluation}"
    return CellSpec(
        key=key,
        method=method,
        task=task,
        budget=budget,
        seed=seed,
        source="procedural",
        classes=TASKS[task],
        image_size=16,
        folder=f"results/scores/{method}/{task}/{budget}/{key}",
        scratch=f"scratch/finetune/{key}",
        encoder=EncoderRef("k", f"results/encoders/{method}/k", "results/encoders/k.json"),
        store=StoreRef("toy", "k", "data/stores/toy/k", "data/stores/k.json"),
        settings=own,
        identity={},
        code="finetune 1",
    )


def with_store(cell: CellSpec, store_folder: str, **changes: Any) -> CellSpec:
    """The cell on another store."""
    return replace(cell, store=replace(cell.store, folder=store_folder), **changes)


def make_job(*cells: CellSpec) -> JobSpec:
    return JobSpec(key="p", receipt="results/jobs/p.json", cells=cells)


def result(cell: CellSpec) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """score.json and the arrays of predictions.npz."""
    score = read_json(f"{cell.folder}/score.json")
    with np.load(f"{cell.folder}/predictions.npz", allow_pickle=False) as arrays:
        return score, dict(arrays)


def same(one, other):
    """Accuracy, predictions, trials and selection; not the times."""
    (score, arrays), (other_score, other_arrays) = one, other
    kept = ("status", "accuracy", "selected", "n_train", "n_val", "n_test")
    assert {name: score[name] for name in kept} == {name: other_score[name] for name in kept}
    for a, b in zip(score["trials"], other_score["trials"], strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}
    assert arrays.keys() == other_arrays.keys()
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], other_arrays[name])
