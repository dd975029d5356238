"""The 19 tasks of VTAB in one table, as they are and as the stand-ins that are drawn for them.

Groups, datasets and numbers of classes: google-research/task_adaptation, scripts/run_all_tasks.sh and its data modules.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vtabflow.planning.code.syntax import module_literals

GROUPS = ("natural", "specialized", "structured", "own")


@dataclass(frozen=True)
class Task:
    """A dataset with a label rule. `classes` is None where only the images can tell (folders)."""

    id: str
    display: str
    group: str
    dataset: str
    source: str
    classes: int | None = None
    module: str | None = None  # the renderer of a stand-in


# id, display name, group, dataset, classes
VTAB = (
    ("caltech101", "Caltech101", "natural", "caltech101", 102),
    ("cifar100", "CIFAR-100", "natural", "cifar100", 100),
    ("dtd", "DTD", "natural", "dtd", 47),
    ("oxford-flowers102", "Flowers102", "natural", "oxford-flowers102", 102),
    ("oxford-iiit-pet", "Pets", "natural", "oxford-iiit-pet", 37),
    ("sun397", "Sun397", "natural", "sun397", 397),
    ("svhn", "SVHN", "natural", "svhn", 10),
    ("patch-camelyon", "Camelyon", "specialized", "patch-camelyon", 2),
    ("eurosat", "EuroSAT", "specialized", "eurosat", 10),
    ("resisc45", "Resisc45", "specialized", "resisc45", 45),
    ("diabetic-retinopathy", "Retinopathy", "specialized", "diabetic-retinopathy", 5),
    ("clevr-count", "Clevr-Count", "structured", "clevr", 8),
    ("clevr-distance", "Clevr-Dist", "structured", "clevr", 6),
    ("dmlab", "DMLab", "structured", "dmlab", 6),
    ("kitti-distance", "KITTI-Dist", "structured", "kitti", 4),
    ("dsprites-location", "dSpr-Loc", "structured", "dsprites", 16),
    ("dsprites-orientation", "dSpr-Ori", "structured", "dsprites", 16),
    ("smallnorb-azimuth", "sNORB-Azim", "structured", "smallnorb", 18),
    ("smallnorb-elevation", "sNORB-Elev", "structured", "smallnorb", 9),
)
VTAB_IDS = tuple(row[0] for row in VTAB)
UPSTREAM_STANDIN = "upstream-standin"
IMAGENET = "imagenet"


@cache
def renderers() -> dict[str, tuple[str, int]]:
    """Every label set that can be drawn: id -> (renderer module, classes), from the TASKS literal of each renderer."""
    found = {}
    for path in sorted((Path(__file__).parent.parent / "standins").glob("*.py")):
        for task, classes in module_literals(path).get("TASKS", {}).items():
            found[task] = (path.stem, classes)
    return found


@cache
def standins() -> dict[str, Task]:
    """The stand-in of each of the 19 tasks, in VTAB's order."""
    found = {}
    for task, display, group, dataset, _ in VTAB:
        name = f"{task}-standin"
        if name in renderers():
            module, classes = renderers()[name]
            found[name] = Task(
                name, f"{display} (stand-in)", group, f"{dataset}-standin", "procedural", classes, module
            )
    return found


@cache
def vtab() -> dict[str, Task]:
    """The 19 tasks themselves, whose images come through TFDS."""
    return {row[0]: Task(*row[:4], "tfds", row[4]) for row in VTAB}
