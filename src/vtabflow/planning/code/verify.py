"""The command `vtabflow code verify UNIT`: does the present code give the results of the locked code, bit for bit?

A tiny study that contains the unit is run twice on the CPU with one thread, once with the package as it was in the
commit that locked the unit and once as it is now. Keys, times and versions are not compared.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from vtabflow.errors import RunError, UserError
from vtabflow.networks.registry import NETWORKS
from vtabflow.planning import catalogue
from vtabflow.planning.code.definitions import PACKAGE
from vtabflow.planning.code.lock import CodeLock
from vtabflow.planning.code.syntax import module_literals
from vtabflow.planning.tasks import UPSTREAM_STANDIN
from vtabflow.runtime.files import read_json, write_json

STEPS = ("prepare", "pretrain", "finetune", "report")
Result = dict[str, Any]


@dataclass
class Case:
    """A tiny study, the last step of it that has to run, and what it needs in addition to the images drawn here."""

    last: str = "pretrain"
    methods: tuple[str, ...] = ("from-scratch",)
    tasks: tuple[str, ...] = ("verify-task",)
    upstream: str = "verify-upstream"
    size: int = 32
    pretrain: dict[str, Any] = field(default_factory=dict)
    evaluation: str = "finetune"

    def study(self) -> dict[str, Any]:
        """The settings, as params.yaml has them."""
        return {
            "study": "verify",
            "methods": self.methods,
            "tasks": self.tasks,
            "budgets": ["full"],
            "upstream": self.upstream,
            "prepare": {
                "image_size": self.size,
                "folders": {name: {"path": name} for name in ("verify-task", "verify-upstream")},
                "procedural": {"train": 800, "val": 200, "test": 20, "upstream": 40},
            },
            "pretrain": {"network": "resnet-small", "steps": 3, "batch": 8, "subset": {"fraction": 0.5}}
            | self.pretrain,
            "finetune": {"evaluation": self.evaluation, "learning_rates": [0.1], "steps": [3], "batch": 8},
        }


def verify(unit: str, against: str | None = None) -> int:
    """Run the cases of a unit with both codes and print one line for each result.

    Args:
        unit: name of a unit.
        against: a git commit to compare with; by default the first whose code.lock has the unit's locked digest.

    Returns:
        The exit code: 0 if all results are the same, else 1.

    Raises:
        UserError: no such unit, no such commit, or a unit that cannot be run here.
        RunError: one of the two codes cannot run the study.
    """
    lock = CodeLock()
    if unit not in lock.units.all:
        raise UserError(f"there is no code unit {unit}; the units are: {', '.join(sorted(lock.units.all))}")
    cases = _cases(unit)
    commit = against or _locked_commit(lock, unit)
    different = False
    with tempfile.TemporaryDirectory(prefix="vtabflow-verify-") as place:
        before = Path(place, "before")
        _extract(commit, before)
        for number, case in enumerate(cases):
            works = {name: Path(place, f"{name}-{number}") for name in ("locked", "present")}
            _run(PACKAGE.parent, works["present"], case)
            _run(before / "src", works["locked"], case, works["present"] if case.last == "report" else None)
            kinds = ("page ",) if case.last == "report" else ("store ", "encoder ", "cell ")
            different |= _compare(_results(works["locked"], kinds), _results(works["present"], kinds))
    print(f"{unit}: {'different' if different else 'same'} as with the code of {commit[:12]}")
    return int(different)


def _cases(unit: str) -> list[Case]:
    kind, _, name = unit.partition("/")
    if kind == "finetune":
        return [Case("finetune", evaluation="finetune"), Case("finetune", evaluation="linear")]
    if kind == "report":
        return [Case("report", methods=("from-scratch", "rotation"))]
    if kind == "networks":
        row = NETWORKS[name]
        size = row["arguments"].get("size", 224 if "patch" in row else 32)
        return [Case("finetune", size=size, pretrain={"network": name})]
    if kind == "methods":
        return [_method_case(info) for info in catalogue.methods().values() if info.module.endswith(f".{name}")]
    if unit == "prepare/folder":
        return [Case("prepare", methods=("rotation",))]
    if kind == "standins":
        tasks = tuple(module_literals(PACKAGE / f"standins/{name}.py")["TASKS"])
        if tasks == (UPSTREAM_STANDIN,):
            return [Case("prepare", methods=("rotation",), upstream=UPSTREAM_STANDIN)]
        return [Case("prepare", tasks=tasks)]
    raise UserError(
        f"{unit} cannot be verified here: it needs archives that TFDS accepts; tests/prepare/test_vtab.py and "
        "test_imagenet.py compare it with what went into miniature archives (`make tfds`, then run them)"
    )


def _method_case(info: catalogue.MethodInfo) -> Case:
    for package, extra in info.needs.items():
        if find_spec(package) is None:
            raise UserError(f"method {info.id} cannot be verified here: it needs `pip install -e '.[{extra}]'`")
    size = min(info.sizes) if info.sizes else max(32, info.smallest_size)
    own = {"channels": 8} if "channels" in info.settings else {}
    pretrain = {"batch": max(8, info.smallest_batch), "image_size": size * info.settings.get("downscale", 1)}
    return Case(methods=(info.id,), pretrain=pretrain | {"per_method": {info.id: own}})


def _locked_commit(lock: CodeLock, unit: str) -> str:
    digest = lock.locked[unit].digest if unit in lock.locked else None
    found = _git("log", "--format=%H", f"-S{digest}", "--", "code.lock").decode().split() if digest else []
    if not found:
        raise UserError(
            f"no commit has {unit} in its code.lock as locked now: commit code.lock, or give a commit by --against"
        )
    return found[-1]


def _git(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, check=True).stdout
    except FileNotFoundError as error:
        raise UserError("git is not installed, and the locked code is in it; install it") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode().strip().splitlines()[-1:] or [""]
        raise UserError(f"git {arguments[0]} failed ({reason[0]}); run this in the project's repository") from error


def _extract(commit: str, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", commit, "src"))) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(folder, filter="data")
        else:  # Python 3.11.0 to 3.11.3; the archive is git's own
            archive.extractall(folder)  # noqa: S202


def _run(source: Path, work: Path, case: Case, scores: Path | None = None) -> None:
    """Run a case in the folder `work` with the package in `source`; with `scores`, its page of the scores there."""
    for number, name in enumerate(("verify-task", "verify-upstream")):
        draw(work / name, number)
    write_json(work / "params.yaml", case.study())  # JSON is YAML
    _command(source, work, "check", "params.yaml")
    for step in STEPS[: STEPS.index(case.last) + 1]:
        specs = sorted(work.glob(f"results/specs/{step}/*.json"))
        if scores and step == "report":
            _copy_scores(read_json(specs[0]), scores, work)
        for spec in specs if step == "report" or not scores else []:
            _command(source, work, step, "--spec", str(spec.relative_to(work)), "--threads", "1")


def _command(source: Path, work: Path, *arguments: str) -> None:
    env = {**os.environ, "PYTHONPATH": str(source), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "vtabflow", *arguments],
        cwd=work,
        env=env,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(f"`vtabflow {' '.join(arguments)}` failed with the code in {source}: {reason}")


def draw(folder: Path, seed: int) -> None:
    """30 images of noise in each of 4 classes."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    for name in (f"{label}/{index}.png" for label in "abcd" for index in range(30)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        # Code before SHA-256 knows files by size and CRC-32, of which PNGs of one size have few: hence two sizes.
        Image.fromarray(rng.integers(0, 256, (40 + seed, 36, 3), np.uint8)).save(folder / name)


def _copy_scores(page: dict[str, Any], scores: Path, work: Path) -> None:
    """Give the page of `work` the cells, encoders and manifests of `scores`, under its own keys."""
    for folder in {cell[name] for cell in page["cells"] for name in ("folder", "encoder")}:
        (source,) = scores.glob(f"{Path(folder).parent}/*/")
        shutil.copytree(source, work / folder, dirs_exist_ok=True)
        for path in (work / folder).glob("score.json"):
            write_json(path, {**read_json(path), "key": Path(folder).name})
    shown = [*page["tasks"], page["upstream"]]
    for manifest in {entry["manifest"] for entry in shown if entry.get("manifest")}:  # none before pages had them
        (source,) = scores.glob(f"{Path(manifest).parent}/*[0-9a-f].json")
        (work / manifest).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, work / manifest)


def _results(work: Path, kinds: tuple[str, ...]) -> dict[str, Result]:
    """What a run has made of some kinds, part by part, by kind and names."""
    found: dict[str, Result] = {}
    for folder, kind in (
        ("data/stores/*", "store"),
        ("results/encoders/*", "encoder"),
        ("results/scores/*/*/*", "cell"),
    ):
        for place in sorted(work.glob(f"{folder}/*/")):
            name = place.parent.relative_to(work / folder.partition("*")[0])
            found[f"{kind} {name}"] = {part: value for path in sorted(place.rglob("*")) for part, value in _parts(path)}
    for place in work.glob("results/reports/verify/*/"):
        for path in sorted(each for each in place.rglob("*") if each.suffix in {".html", ".csv", ".svg"}):
            text = re.sub(r"\b([0-9a-f]{16,64}|\d{4}-\d\d-\d\d(.\d\d:\d\d(:\d\d)?)?)\b", "*", path.read_text("utf-8"))
            found[f"page {path.relative_to(place)}"] = {"text": text}
    return {name: result for name, result in found.items() if name.startswith(kinds)}


def _parts(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        yield from ((name, _bits(tensor)) for name, tensor in load_file(path).items())
    elif path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            yield from ((name, _bits(arrays[name])) for name in arrays.files)
    elif path.name == "score.json":
        score = read_json(path)
        yield from ((name, score[name]) for name in ("status", "accuracy", "selected"))
    elif path.is_file() and path.suffix != ".json":
        yield path.name, path.read_bytes()


def _bits(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return str(array.dtype), array.shape, array.tobytes()


def _compare(locked: dict[str, Result], present: dict[str, Result]) -> bool:
    """Print a line for each result; True if any differs."""
    different = False
    for name in sorted(locked.keys() | present.keys()):
        ours, theirs = present.get(name, {}), locked.get(name, {})
        parts = [part for part in sorted(ours.keys() | theirs.keys()) if ours.get(part) != theirs.get(part)]
        different |= bool(parts) or not ours
        shown = ", ".join(parts[:5]) + (f" and {len(parts) - 5} more" if parts[5:] else "")
        print(f"{'different' if parts else 'same     '}  {name}{f': {shown}' if parts else ''}", flush=True)
    return different
