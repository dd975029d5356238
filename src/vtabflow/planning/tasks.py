"""The tasks of a study: VTAB's 19 and others that come through TFDS, and the stand-ins that are drawn for VTAB's.

A TFDS task is an entry in its dataset's file, prepare/tfds/datasets/<dataset>.yaml. A stand-in is an entry of TASKS in
its renderer, standins/<module>.py. Folders of images are tasks of the study that names them.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vtabflow.planning.code.syntax import module_literals
from vtabflow.prepare.tfds.datasets import datasets

UPSTREAM_STANDIN = "upstream-standin"
IMAGENET = "imagenet"


@dataclass(frozen=True)
class Task:
    """A dataset with a label rule.

    Attributes:
        source: procedural, folder or tfds.
        classes: None for folders, whose classes are read with the images.
        module: the renderer of a stand-in.
    """

    id: str
    display: str
    group: str
    dataset: str
    source: str
    classes: int | None = None
    module: str | None = None


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
    for task in vtab().values():
        name = f"{task.id}-standin"
        if name in renderers():
            module, classes = renderers()[name]
            display, dataset = f"{task.display} (stand-in)", f"{task.dataset}-standin"
            found[name] = Task(name, display, task.group, dataset, "procedural", classes, module)
    return found


@cache
def tfds_tasks() -> dict[str, Task]:
    """All tasks whose images come through TFDS: VTAB's 19 in the paper's order, then others."""
    places = {}
    for dataset in datasets().values():
        for name, task in dataset.tasks.items():
            place = task.vtab or float("inf")
            places[name] = place, Task(name, task.display, task.group, dataset.id, "tfds", task.classes)
    return {name: places[name][1] for name in sorted(places, key=lambda name: (places[name][0], name))}


@cache
def vtab() -> dict[str, Task]:
    """VTAB's 19 tasks (Zhai et al. 2019, section 3.1), in the paper's order.

    Groups and numbers of classes: google-research/task_adaptation at d7630d3, scripts/run_all_tasks.sh and data/.
    """
    counted = {name for dataset in datasets().values() for name, task in dataset.tasks.items() if task.vtab}
    return {name: task for name, task in tfds_tasks().items() if name in counted}
