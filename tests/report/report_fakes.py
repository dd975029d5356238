"""Small studies for the tests of the report: page specs, and score.json files with accuracies that the test chooses."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from encoder_cards import encoder_card
from vtabflow.contracts.results import Manifest, Score, Selected, TrialResult
from vtabflow.contracts.specs import (
    LeftOut,
    PageCell,
    PageMethod,
    PageSpec,
    PageTask,
    PageUpstream,
    ReportSettings,
)
from vtabflow.contracts.typed_json import to_json
from vtabflow.runtime.files import digest, write_json

METHODS = (
    PageMethod("from-scratch", "From-Scratch", "from-scratch", "resnet-small"),
    PageMethod("rotation", "Rotation", "self-supervised", "resnet-small"),
    PageMethod("vae", "VAE", "generative", "resnet-small"),
    PageMethod("sup-100", "Sup-100%", "supervised", "resnet-small"),
)
TASKS = tuple(
    PageTask(f"{name}-standin", f"{name} (stand-in)", group, "procedural", f"{name}-standin", classes)
    for name, group, classes in (
        ("dtd", "natural", 47),
        ("svhn", "natural", 10),
        ("eurosat", "specialized", 10),
        ("dmlab", "structured", 6),
    )
)
OWN = PageTask("birds", "Birds", "own", "folder", "birds", 3)
SCANS = PageTask("scans", "Scans", "own", "folder", "scans", 2, "data/manifests/scans/0123456789abcdef.json")
GENERATED = PageUpstream("upstream-standin", "procedural upstream set", "procedural")
PHOTOGRAPHS = PageUpstream("my-photos", "My photos", "folder")


def page_spec(
    study: str = "demo",
    methods: Sequence[PageMethod] = METHODS,
    tasks: Sequence[PageTask] = TASKS,
    budgets: tuple[str, ...] = ("1k", "full"),
    seeds: tuple[int, ...] = (0, 1, 2),
    theme: str = "light",
    title: str | None = None,
    upstream: PageUpstream = GENERATED,
) -> PageSpec:
    """A page's spec with a cell for every method, task, budget and seed, relative to the working directory."""
    cells = []
    for method in methods:
        for task in tasks:
            for budget in budgets:
                for seed in seeds:
                    key = digest(["cell", method.id, task.id, budget, seed])
                    folder = f"results/scores/{method.id}/{task.id}/{budget}/{key}"
                    encoder = f"results/encoders/{method.id}/{digest(method.id)}"
                    cells.append(PageCell(key, method.id, task.id, budget, seed, folder, encoder))
    key = digest([study, to_json(methods), to_json(tasks), budgets, seeds, theme, title])
    return PageSpec(
        key=key,
        folder=f"results/reports/{study}/{key}",
        receipt=f"results/reports/{study}/{key}.json",
        study=study,
        methods=tuple(methods),
        tasks=tuple(tasks),
        budgets=budgets,
        seeds=seeds,
        upstream=upstream,
        network="resnet-small",
        evaluation="finetune",
        left_out=LeftOut((), (), (), False),
        settings=ReportSettings(title, theme),
        code="1",
        cells=tuple(cells),
    )


def write_score(
    spec: PageSpec,
    cell: PageCell,
    accuracy: float | None,
    reason: str | None = None,
    images: tuple[int, int] = (1600, 400),
    balanced: float | None = None,
    n_test: int = 500,
) -> None:
    """Write a cell's score.json; without an accuracy it failed, for `reason`.

    `images`: training and validation images of the task, of which the 1k budget takes the first 800 and 200.
    """
    status = "failed" if accuracy is None else "ok"
    train, val = (min(800, images[0]), min(200, images[1])) if cell.budget == "1k" else images
    selected = None if accuracy is None else Selected(0.01, 60, min(1.0, accuracy + 0.01))
    score = Score(
        key=cell.key,
        method=cell.method,
        task=cell.task,
        budget=cell.budget,
        seed=cell.seed,
        source=next(task.source for task in spec.tasks if task.id == cell.task),
        evaluation=spec.evaluation,
        status=status,
        reason=reason,
        selected=selected,
        accuracy=accuracy,
        images_per_second=1000.0,
        outside_network=0.1,
        peak_memory_bytes=10**8,
        trials=(TrialResult(0.01, 60, accuracy, 0.5, 1.0, status, reason),),
        passed_over=(),
        n_train=train,
        n_val=val,
        n_trainval=train + val,
        n_test=n_test,
        seconds=2.5,
        precision="float32",
        spec=to_json(cell),
        versions={"python": "3.11", "torch": "2.15"},
        machine={"host": "a machine"},
        balanced_accuracy=balanced,
    )
    write_json(Path(cell.folder) / "score.json", to_json(score))


def write_scores(
    spec: PageSpec,
    accuracy: Callable[[PageCell], float | None],
    skip: Callable[[PageCell], bool] = lambda cell: False,
    images: dict[str, tuple[int, int]] | None = None,
) -> None:
    """Write the scores of all cells but those to `skip`; `accuracy` gives that of each cell, None for a failed one.

    `images`: training and validation images of the tasks that have others than `write_score` gives.
    """
    for cell in spec.cells:
        if not skip(cell):
            value = accuracy(cell)
            reason = None if value is not None else "the loss was not finite in every trial"
            write_score(spec, cell, value, reason, (images or {}).get(cell.task, (1600, 400)))


def write_manifest(
    task: PageTask | PageUpstream,
    test: Sequence[int],
    train: Sequence[int] | None = None,
    val: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    **fields: Any,
) -> None:
    """Write a folder's manifest at `task.manifest`; the counts are images per class. `fields`: others of Manifest."""
    histogram = {"train": train or test, "val": val or test, "test": test}
    manifest = Manifest(
        dataset=task.id,
        source=task.source,
        settings=fields.pop("settings", {"path": f"/home/somebody/pictures/{task.id}.zip", "invalid": "skip"}),
        image={"size": 32},
        rows="all",
        counts={split: sum(counts) for split, counts in histogram.items()},
        shape=dict.fromkeys(histogram, (32, 32, 3)),
        classes={task.id: len(test)},
        class_names={task.id: tuple(names)} if names else None,
        histogram={task.id: {split: tuple(counts) for split, counts in histogram.items()}},
        sha256={},
        skipped=fields.pop("skipped", ()),
        spec={},
        **fields,
    )
    write_json(Path(task.manifest), to_json(manifest))


def write_encoder_card(spec: PageSpec, method: str, status: str, reason: str | None) -> Path:
    """Write the card.json of a method's encoder, and return its path."""
    (row,) = (row for row in spec.methods if row.id == method)
    known = {"method": method, "display": row.display, "family": row.family, "network": row.network}
    card = encoder_card(**known, status=status, reason=reason)
    path = Path(next(cell.encoder for cell in spec.cells if cell.method == method), "card.json")
    write_json(path, to_json(card))
    return path
