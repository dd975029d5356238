"""Run a study's jobs from their frozen specs, on a machine that has GPUs but no Snakemake.

    python tools/run_specs.py freeze studies/folders.yaml SPECS     where the project is installed: writes the specs
    python tools/run_specs.py speed SPECS [METHOD ...] --gpu 0      steps/s of pre-training, and steps in --seconds
    python tools/run_specs.py run SPECS --gpus 0,1 --jobs 3         stores, then encoders and cells, so many jobs a GPU at once
    python tools/run_specs.py table SPECS                           what came out, as Markdown

The last three need only what the steps need (torch, numpy, pillow, safetensors). What exists is not made again, so a
`run` that was cut short (by --limit seconds, or otherwise) goes on when it is called again.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
Spec = dict[str, Any]


def freeze(study: str, folder: Path) -> None:
    """Write every spec but the page's to folder/<step>/<key>.json."""
    from vtabflow.planning.keys import plan
    from vtabflow.planning.study import load

    for spec in plan(load(study)).specs():
        if spec["step"] != "report":
            path = folder / spec["step"] / f"{spec['key']}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(spec))


def specs_of(folder: Path, step: str) -> list[Spec]:
    return [json.loads(path.read_text()) for path in sorted((folder / step).glob("*.json"))]


def speed(folder: Path, gpu: str, seconds: float, methods: list[str]) -> None:
    """Print how many steps each method makes in `seconds`, from a run of 40 of them."""
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    from vtabflow.planning.catalogue import info
    from vtabflow.pretrain import step

    for spec in specs_of(folder, "pretrain"):
        known = info(spec["method"])
        if not known.streams or (methods and known.id not in methods):
            continue
        short = copy.deepcopy(spec)
        short["settings"]["steps"] = 40
        short |= {name: f"scratch/speed/{spec[name]}" for name in ("folder", "receipt", "scratch")}
        step.run(short)
        card = json.loads((Path(short["folder"]) / "card.json").read_text())
        each = spec["settings"]["batch"] * len(known.streams) * len(known.turns)
        steps = round(seconds * card["images_per_second"] / each, -1)
        print(f"{known.id}: {card['images_per_second']:.0f} images/s, {steps:.0f} steps in {seconds:g} s", flush=True)


def run(folder: Path, gpus: list[str], jobs: int, limit: float) -> None:
    """All jobs, cells as soon as their encoder is there; says which failed, with the end of their logs."""
    end = time.monotonic() + limit
    work(missing(folder, "prepare"), [""] * 4, end)
    cells: dict[tuple[str, str], list[Spec]] = {}
    for pack in specs_of(folder, "finetune"):
        for cell in pack["cells"]:
            if not (Path(cell["folder"]) / "score.json").exists():
                cells.setdefault((cell["method"], cell["task"]), []).append(cell)
    packs = []
    for (method, task), mine in cells.items():
        name = f"{method}-{task}"
        packs.append(
            {"step": "finetune", "key": name, "pack": name, "receipt": f"scratch/packs/{name}.json", "cells": mine}
        )
    work(packs + missing(folder, "pretrain"), gpus * jobs, end)


def missing(folder: Path, step: str) -> list[Spec]:
    return [spec for spec in specs_of(folder, step) if not Path(spec["receipt"]).exists()]


def ready(spec: Spec) -> bool:
    """Whether the encoders of a pack's cells are there; other steps need nothing that is made beside them."""
    return all((Path(cell["encoder"]["folder"]) / "card.json").exists() for cell in spec.get("cells", []))


def work(specs: list[Spec], slots: list[str], end: float) -> None:
    """Run the specs, the first that is ready in each free slot; a slot is the GPU that its jobs see."""
    free, waiting = list(enumerate(slots)), list(specs)
    running: list[Any] = []
    while time.monotonic() < end:
        for job, slot, log in [item for item in running if item[0].poll() is not None]:
            running.remove((job, slot, log))
            free.append(slot)
            if job.returncode:
                print(f"FAILED {log}\n{log.read_text()[-1500:]}", flush=True)
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
    print(f"{len(specs)} jobs, {len(waiting)} not begun, {len(running)} cut short", flush=True)


def start(spec: Spec, slot: tuple[int, str]) -> tuple[subprocess.Popen[bytes], tuple[int, str], Path]:
    path, log = (Path(f"scratch/by-hand/{spec['key']}.{end}") for end in ("json", "log"))
    locks = Path(f"scratch/by-hand/locks-{slot[0]}").resolve()
    locks.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(spec))
    paths = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    seen = {"CUDA_VISIBLE_DEVICES": slot[1], "VTABFLOW_LOCKS": str(locks), "PYTHONPATH": paths}
    command = [sys.executable, "-m", "vtabflow", spec["step"], "--spec", str(path), "--threads", "4"]
    with log.open("w") as stream:
        return subprocess.Popen(command, env={**os.environ, **seen}, stdout=stream, stderr=stream), slot, log


def table(folder: Path) -> None:
    """One line a method: pre-training from its card, then mean and deviation over the seeds for each task, percent."""
    cells = [cell for pack in specs_of(folder, "finetune") for cell in pack["cells"]]
    tasks = sorted({cell["task"] for cell in cells})
    print("| method | steps x batch | loss, start to end | probe, % | images/s | peak GB |", " | ".join(tasks), "|")
    print("|---|---:|---|---:|---:|---:|" + "---:|" * len(tasks))
    for spec in sorted(specs_of(folder, "pretrain"), key=lambda spec: (spec["family"], spec["method"])):
        path = Path(spec["folder"]) / "card.json"
        if not path.exists():
            continue
        card, columns = json.loads(path.read_text()), []
        for task in tasks:
            scores = [
                json.loads((Path(cell["folder"]) / "score.json").read_text())
                for cell in cells
                if (cell["method"], cell["task"]) == (spec["method"], task)
                and (Path(cell["folder"]) / "score.json").exists()
            ]
            values = [100 * score["accuracy"] for score in scores if score["status"] == "ok"]
            spread = f" +- {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            failed = len(scores) - len(values)
            columns.append(
                (f"{statistics.mean(values):.1f}{spread}" if values else "-") + f" ({failed} failed)" * bool(failed)
            )
        losses = card["losses"]
        said = "; ".join(f"{n} {losses['start'][n]:.3g} to {losses['end'][n]:.3g}" for n in losses.get("start", {}))
        probe = f"{100 * card['probe']['start']:.1f} to {100 * card['probe']['accuracy']:.1f}" if card["probe"] else ""
        steps = f"{spec['settings']['steps']:,} x {spec['settings']['batch']}" if spec["settings"] else ""
        rate = f"{card['images_per_second']:,.0f}" if card["images_per_second"] else ""
        note = "" if card["status"] == "ok" else f" ({card['status']}: {card['reason']})"
        row = [card["display"] + note, steps, said, probe, rate, f"{card['peak_memory_bytes'] / 1e9:.1f}", *columns]
        print("|", " | ".join(row), "|")


def main() -> None:
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
    sys.path.insert(0, str(ROOT / "src"))
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
