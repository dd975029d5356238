"""Run a study's jobs from their frozen specs, on a machine that has GPUs but no Snakemake.

    python tools/run_specs.py freeze studies/folders.yaml SPECS     where the project is installed: writes the specs
    python tools/run_specs.py speed SPECS [METHOD ...] --gpu 0      steps/s of pre-training, and steps in --seconds
    python tools/run_specs.py run SPECS --gpus 0,1 --jobs 3         stores, encoders, cells; --jobs per GPU
    python tools/run_specs.py table SPECS                           the results, as Markdown

The last three need only what the steps need (torch, numpy, pillow, safetensors). What exists is not made again, so a
`run` that was cut short (by --limit seconds, or otherwise) goes on when it is called again.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from vtabflow.contracts.specs import CellSpec, EncoderSpec, JobSpec, Spec  # noqa: E402
from vtabflow.contracts.typed_json import to_json  # noqa: E402
from vtabflow.planning.state import load_spec  # noqa: E402


def freeze(study: str, folder: Path) -> None:
    """Write every spec but the page's to folder/<step>/<key>.json."""
    from vtabflow.planning.keys import plan
    from vtabflow.planning.study import load

    for spec in plan(load(study)).specs():
        if spec.step != "report":
            path = folder / spec.step / f"{spec.key}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(to_json(spec)), "utf-8")


def specs_of(folder: Path, step: str) -> list[Any]:
    """The frozen specs of one step."""
    return [load_spec(step, path) for path in sorted((folder / step).glob("*.json"))]


def speed(folder: Path, gpu: str, seconds: float, methods: list[str]) -> None:
    """Print how many steps each method makes in `seconds`, from a run of 40 of them."""
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    from vtabflow.planning.catalogue import info
    from vtabflow.pretrain import step

    for spec in specs_of(folder, "pretrain"):
        known = info(spec.method)
        if spec.settings is None or (methods and known.id not in methods):
            continue
        places = {name: f"scratch/speed/{getattr(spec, name)}" for name in ("folder", "receipt", "scratch")}
        short = replace(spec, settings=replace(spec.settings, steps=40), **places)
        step.run(short)
        card = json.loads((Path(short.folder) / "card.json").read_text("utf-8"))
        images_per_step = spec.settings.batch * len(known.streams) * len(known.update_order)
        steps = round(seconds * card["images_per_second"] / images_per_step, -1)
        print(f"{known.id}: {card['images_per_second']:.0f} images/s, {steps:.0f} steps in {seconds:g} s", flush=True)


def run(folder: Path, gpus: list[str], jobs: int, limit: float) -> None:
    """Run all jobs, cells as soon as their encoder exists; prints which failed, with the end of their logs."""
    end = time.monotonic() + limit
    work(missing(folder, "prepare"), [""] * 4, end)
    cells: dict[str, list[CellSpec]] = {}
    for job in specs_of(folder, "finetune"):
        for cell in job.cells:
            if not (Path(cell.folder) / "score.json").exists():
                cells.setdefault(f"{cell.method}-{cell.task}", []).append(cell)
    by_task: list[Spec] = [
        JobSpec(key=name, receipt=f"scratch/jobs/{name}.json", cells=tuple(mine)) for name, mine in cells.items()
    ]
    work(by_task + missing(folder, "pretrain"), gpus * jobs, end)


def missing(folder: Path, step: str) -> list[Spec]:
    """The specs of a step whose receipts do not exist."""
    return [spec for spec in specs_of(folder, step) if not Path(spec.receipt).exists()]


def ready(spec: Spec) -> bool:
    """Whether the encoders of a job's cells exist; other steps need nothing that is made at the same time."""
    cells = spec.cells if isinstance(spec, JobSpec) else ()
    return all((Path(cell.encoder.folder) / "card.json").exists() for cell in cells)


def work(specs: list[Spec], slots: list[str], end: float) -> None:
    """Run the specs, in each free slot the first that is ready; a slot is the GPU that its jobs use."""
    free, waiting = list(enumerate(slots)), list(specs)
    running: list[Any] = []
    while time.monotonic() < end:
        for job, slot, log in [item for item in running if item[0].poll() is not None]:
            running.remove((job, slot, log))
            free.append(slot)
            if job.returncode:
                print(f"FAILED {log}\n{log.read_text('utf-8')[-1500:]}", flush=True)
        able = [spec for spec in waiting if ready(spec)]
        if not (able or running):
            break
        for spec in able[: len(free)]:
            waiting.remove(spec)
            slot = free.pop(0)
            running.append(start(spec, slot))
        time.sleep(0.2)
    for job, _, _ in running:
        job.terminate()
    print(f"{len(specs)} jobs, {len(waiting)} not started, {len(running)} stopped", flush=True)


def start(spec: Spec, slot: tuple[int, str]) -> tuple[subprocess.Popen[bytes], tuple[int, str], Path]:
    """Start one job on the GPU of its slot; returns the process, the slot and the log."""
    path, log = (Path(f"scratch/run-specs/{spec.key}.{ending}") for ending in ("json", "log"))
    locks = Path(f"scratch/run-specs/locks-{slot[0]}").resolve()
    locks.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_json(spec)), "utf-8")
    paths = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    variables = {"CUDA_VISIBLE_DEVICES": slot[1], "VTABFLOW_LOCKS": str(locks), "PYTHONPATH": paths}
    command = [sys.executable, "-m", "vtabflow", spec.step, "--spec", str(path), "--threads", "4"]
    with log.open("w", encoding="utf-8") as stream:
        return subprocess.Popen(command, env={**os.environ, **variables}, stdout=stream, stderr=stream), slot, log


def table(folder: Path) -> None:
    """Print one row per method: pre-training from its card, then mean and deviation over seeds per task, percent."""
    cells = [cell for job in specs_of(folder, "finetune") for cell in job.cells]
    tasks = sorted({cell.task for cell in cells})
    print("| method | steps x batch | loss, start to end | probe, % | images/s | peak GB |", " | ".join(tasks), "|")
    print("|---|---:|---|---:|---:|---:|" + "---:|" * len(tasks))
    for spec in sorted(specs_of(folder, "pretrain"), key=lambda spec: (spec.family, spec.method)):
        path = Path(spec.folder) / "card.json"
        if path.exists():
            card = json.loads(path.read_text("utf-8"))
            mine = [cell for cell in cells if cell.method == spec.method]
            columns = [accuracy([cell for cell in mine if cell.task == task]) for task in tasks]
            print("|", " | ".join([*pretraining(spec, card), *columns]), "|")


def pretraining(spec: EncoderSpec, card: dict[str, Any]) -> list[str]:
    """The columns on pre-training, from an encoder's card."""
    losses = card["losses"]
    changes = "; ".join(f"{n} {losses['start'][n]:.3g} to {losses['end'][n]:.3g}" for n in losses.get("start", {}))
    probe = f"{100 * card['probe']['start']:.1f} to {100 * card['probe']['accuracy']:.1f}" if card["probe"] else ""
    steps = f"{spec.settings.steps:,} x {spec.settings.batch}" if spec.settings else ""
    rate = f"{card['images_per_second']:,.0f}" if card["images_per_second"] else ""
    note = "" if card["status"] == "ok" else f" ({card['status']}: {card['reason']})"
    return [card["display"] + note, steps, changes, probe, rate, f"{card['peak_memory_bytes'] / 1e9:.1f}"]


def accuracy(cells: list[CellSpec]) -> str:
    """Mean and standard deviation over the finished seeds, percent, and how many failed."""
    paths = [Path(cell.folder) / "score.json" for cell in cells]
    scores = [json.loads(path.read_text("utf-8")) for path in paths if path.exists()]
    values = [100 * score["accuracy"] for score in scores if score["status"] == "ok"]
    spread = f" +- {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    failed = len(scores) - len(values)
    return (f"{statistics.mean(values):.1f}{spread}" if values else "-") + f" ({failed} failed)" * bool(failed)


def main() -> None:
    """Run one of the four commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("freeze")
    command.add_argument("study")
    command.add_argument("folder", type=Path)
    command = commands.add_parser("speed")
    command.add_argument("folder", type=Path)
    command.add_argument("methods", nargs="*")
    command.add_argument("--gpu", default="0")
    command.add_argument("--seconds", type=float, default=45.0)
    command = commands.add_parser("run")
    command.add_argument("folder", type=Path)
    command.add_argument("--gpus", default="0")
    command.add_argument("--jobs", type=int, default=3)
    command.add_argument("--limit", type=float, default=1e9)
    commands.add_parser("table").add_argument("folder", type=Path)
    given = parser.parse_args()
    if given.command == "freeze":
        freeze(given.study, given.folder)
    elif given.command == "speed":
        speed(given.folder, given.gpu, given.seconds, given.methods)
    elif given.command == "run":
        run(given.folder, given.gpus.split(","), given.jobs, given.limit)
    else:
        table(given.folder)


if __name__ == "__main__":
    main()
