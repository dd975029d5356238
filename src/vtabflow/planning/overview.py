"""What a study is, what of it is there, and what no study needs any more."""

import re
import shutil
from collections import Counter
from pathlib import Path

from vtabflow.errors import UserError
from vtabflow.planning.keys import Plan, freeze, is_complete, plan
from vtabflow.planning.study import Study, load
from vtabflow.runtime.files import read_json, try_lock

LOGS = Path("results/logs")
# Failed jobs that `status` tells of.
SHOWN = 8
KEYED = ("data/stores/*/*", "results/encoders/*/*", "results/scores/*/*/*/*", "results/reports/*/*")


def check(params: str) -> None:
    """Check a study, write its specs and say its size. UserError if a person has to bring images first."""
    made = plan(load(params))
    freeze(made)
    study = made.study
    whole = len(study.methods) * len(study.tasks) * len(study.budgets) * len(study.seeds)
    less = f", {len(made.cells)} without what is left out," if len(made.cells) < whole else ""
    print(
        f"{study.study}: {len(study.methods)} methods x {len(study.tasks)} tasks x {len(study.budgets)} budgets x {len(study.seeds)} seeds"
        f" = {whole} cells{less} in {len(made.packs)} jobs; {len(made.encoders)} encoders, {len(made.stores)} stores; page {made.page['key']}"
    )
    say_left_out(made)
    for sentence in made.to_bring:
        print(f"to bring: {sentence}")
    if made.to_bring:
        datasets = list(dict.fromkeys(sentence.split(":")[0] for sentence in made.to_bring))
        raise UserError(
            f"{', '.join(datasets)}: images that only a person can fetch are missing (the lines above say which and where to); bring "
            f"them, or set prepare.tfds.absent: leave-out in {params} to go on without"
        )


def say_left_out(made: Plan) -> None:
    """One line for what has to be brought, with the methods and tasks that are not run without it."""
    study = made.study
    for reason in dict.fromkeys(made.left_out.values()):
        names = [name for name in study.methods if made.methods_out.get(name) == reason]
        names += [name for name in study.tasks if made.tasks_out.get(name) == reason]
        print(f"left out: {', '.join(names)}: {reason.removeprefix(f'{names[0]}: ')}")


def status(params: str) -> None:
    """One line a step: how many results are there, failed or missing; and how the jobs that failed ended."""
    made = plan(load(params))
    for step, specs in (("prepare", made.stores), ("pretrain", made.encoders), ("finetune", made.cells)):
        states = Counter(_state(spec) for spec in specs.values())
        print(
            f"{step:9} {len(specs):5}: "
            + ", ".join(f"{states[state]} {state}" for state in ("there", "failed", "missing") if states[state])
        )
    page = Path(f"results/reports/{made.study.study}/index.html")
    print(f"{'report':9}      : {page if is_complete(made.page) and page.exists() else 'missing'}")
    said = failures(made)
    print("".join(f"{line}\n" for line in said[:SHOWN]), end="")
    if len(said) > SHOWN:
        print(f"and {len(said) - SHOWN} more under {LOGS}")


def failures(made: Plan) -> list[str]:
    """The last line of each job's log that ends with an error, for the jobs whose results are missing."""
    found = []
    jobs = [*made.stores.values(), *made.encoders.values(), *made.packs.values(), made.page]
    for job in (job for job in jobs if not is_complete(job)):
        for log in sorted(LOGS.glob(f"{job['step']}/**/{job['key']}.log")):
            last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-1:]
            if any(re.match(r"error: |\w*(Error|Exception)\b", line) for line in last):
                found.append(f"{job['step']} failed: {last[0].removeprefix('error: ')} ({log})")
    return found


def _state(spec: dict) -> str:
    if not is_complete(spec):
        return "missing"
    for name in ("score.json", "card.json"):
        path = Path(spec["folder"]) / name
        if path.exists() and read_json(path).get("status") == "failed":
            return "failed"
    return "there"


def collect_garbage(studies: list[str], really: bool) -> None:
    """Remove keyed results that none of the studies refers to, after saying what. Manifests stay: they are small, and they are the record."""
    files = studies or [
        str(path) for path in [Path("params.yaml"), *sorted(Path("studies").glob("*.yaml"))] if path.exists()
    ]
    if not files:
        raise UserError(
            "there is no study here to keep; run this in the project's folder, or name the study files to keep"
        )
    kept: set[str] = set()
    for file in files:
        try:
            study = load(file)
            # Also what is left out today: its images may only be away for now, and its results took days.
            kept |= _keys(plan(with_all(study))) | _keys(plan(study))
        except UserError as error:
            named = " ".join(name for name in files if name != file)
            raise UserError(
                f"what {file} needs cannot be told ({error}), so nothing is removed; name the studies to keep: vtabflow gc {named}"
            ) from error
    keyed = sorted(
        folder for pattern in KEYED for folder in Path().glob(pattern) if _is_keyed(folder) and folder.name not in kept
    )
    torn = [folder for folder in sorted(Path().glob("data/stores/*/.*")) if is_torn(folder)]
    going = keyed + torn
    size = sum(file.stat().st_size for folder in going for file in folder.rglob("*") if file.is_file())
    for folder in going:
        print(folder)
    print(f"{len(going)} results, {size / 1e6:.1f} MB, belong to none of: {', '.join(files)}")
    if not really:
        print("nothing was removed; `vtabflow gc --yes` removes them")
        return
    for folder in torn:
        with try_lock(folder) as free:
            if free:
                shutil.rmtree(folder)
    for folder in keyed:
        shutil.rmtree(folder)
        folder.with_suffix(".json").unlink(missing_ok=True)


def with_all(study: Study) -> Study:
    """The study with nothing left out of it."""
    tfds = study.prepare.tfds.model_copy(update={"absent": "refuse"})
    return study.model_copy(update={"prepare": study.prepare.model_copy(update={"tfds": tfds})})


def _keys(made: Plan) -> set[str]:
    return {*made.stores, *made.encoders, *made.cells, made.page["key"]}


def is_torn(folder: Path) -> bool:
    """Whether it is the hidden folder of a store whose maker was killed."""
    with try_lock(folder) as free:
        return free


def _is_keyed(folder: Path) -> bool:
    return folder.is_dir() and len(folder.name) == 16 and all(letter in "0123456789abcdef" for letter in folder.name)
