"""The commands `check`, `status` and `gc`: the size of a study, which results exist, and which no study needs."""

import re
import shutil
from collections import Counter
from pathlib import Path

from vtabflow.contracts.results import Remark
from vtabflow.contracts.specs import CellSpec, EncoderSpec, StoreSpec
from vtabflow.contracts.typed_json import from_json
from vtabflow.errors import UserError
from vtabflow.planning.folders import caches_of, few_collections, of_budgets, short
from vtabflow.planning.keys import Plan, plan
from vtabflow.planning.state import freeze, is_complete, read_or_none
from vtabflow.planning.study import Study, load
from vtabflow.prepare.folders.scan import FINGERPRINTS, of_what
from vtabflow.runtime.locks import try_locked

LOGS = Path("results/logs")
MAX_FAILURES = 8  # failed jobs that `status` prints
KEYED = ("data/stores/*/*", "results/encoders/*/*", "results/scores/*/*/*/*", "results/reports/*/*")


def check(params: str) -> None:
    """Check a study, write its specs and print its size.

    Raises:
        UserError: the study has an error, or a person has to download images first.
    """
    planned = plan(load(params))
    freeze(planned)
    study = planned.study
    parts = {"methods": study.methods, "tasks": study.tasks, "budgets": study.budgets, "seeds": study.seeds}
    total = 1
    for values in parts.values():
        total *= len(values)
    left = f", {len(planned.cells)} without what is left out," if len(planned.cells) < total else ""
    print(
        f"{study.study}: {' x '.join(f'{len(values)} {name}' for name, values in parts.items())} = {total} cells{left} "
        f"in {len(planned.jobs)} jobs; {len(planned.encoders)} encoders, {len(planned.stores)} stores; "
        f"page {planned.page.key}"
    )
    with few_collections():
        for dataset, folder in planned.folders.items():
            print(*folder.lines(dataset, study.budgets), sep="\n")
    print_excluded(planned)
    for sentence in planned.manual_downloads:
        print(f"manual download: {sentence}")
    if planned.manual_downloads:
        datasets = dict.fromkeys(sentence.split(":")[0] for sentence in planned.manual_downloads)
        raise UserError(
            f"{', '.join(datasets)}: images are missing that have to be downloaded manually (the lines above say which "
            f"and where to put them); do that, or set prepare.tfds.absent: leave-out in {params} to go on without"
        )


def print_excluded(planned: Plan) -> None:
    """One line per reason, with the methods and tasks that are not run: manual downloads and folders."""
    study = planned.study
    for reason in dict.fromkeys(planned.excluded.values()):
        names = [name for name in study.methods if planned.excluded_methods.get(name) == reason]
        names += [name for name in study.tasks if planned.excluded_tasks.get(name) == reason]
        print(f"left out: {', '.join(names)}: {reason.removeprefix(f'{names[0]}: ')}")


def status(params: str) -> None:
    """Print the state of a study.

    One line per step: how many results exist, failed or are missing. Then what of the folders of images is left out or
    has to be known, what is left out of the study, and how the failed jobs ended.
    """
    planned = plan(load(params))
    for step, specs in (("prepare", planned.stores), ("pretrain", planned.encoders), ("finetune", planned.cells)):
        states = Counter(_state(spec) for spec in specs.values())
        counts = ", ".join(f"{states[state]} {state}" for state in ("done", "failed", "missing") if states[state])
        print(f"{step:9} {len(specs):5}: {counts}")
    page = Path(f"results/reports/{planned.study.study}/index.html")
    print(f"{'report':9}      : {page if is_complete(planned.page) and page.exists() else 'missing'}")
    _print_folders(planned)
    print_excluded(planned)
    failed = failures(planned)
    for line in failed[:MAX_FAILURES]:
        print(line)
    if len(failed) > MAX_FAILURES:
        print(f"and {len(failed) - MAX_FAILURES} more under {LOGS}")


def _print_folders(planned: Plan) -> None:
    """What is left out of folders, and remarks: of the finished stores, or as far as they are known before."""
    stores = {spec.dataset: spec for spec in planned.stores.values()}
    for dataset, folder in planned.folders.items():
        manifest = read_or_none(Path(stores[dataset].folder) / "manifest.json")
        if isinstance(manifest, dict) and manifest.get("remarks") is not None:
            skipped = {entry["file"]: entry["reason"] for entry in manifest["skipped"]}
            found = [from_json(Remark, remark, "remark") for remark in manifest["remarks"]]
            remarks = of_budgets(found, planned.study.budgets) + ([folder.in_upstream] if folder.in_upstream else [])
        elif folder.settings.role == "upstream":  # whose splits are not drawn for this
            skipped, remarks = folder.scan.skipped, list(folder.scan.layout.remarks)
        else:
            skipped, remarks = folder.skipped, folder.remarks(planned.study.budgets)
        for text in short(skipped, remarks):
            print(f"{dataset}: {text}")


def failures(planned: Plan) -> list[str]:
    """The last line of each job's log that ends with an error, for the jobs whose results are missing."""
    found = []
    for spec in (spec for spec in planned.specs() if not is_complete(spec)):
        for log in sorted(LOGS.glob(f"{spec.step}/**/{spec.key}.log")):
            last = [line for line in log.read_text("utf-8", errors="replace").splitlines() if line.strip()][-1:]
            if any(re.match(r"error: |\w*(Error|Exception)\b", line) for line in last):
                found.append(f"{spec.step} failed: {last[0].removeprefix('error: ')} ({log})")
    return found


def _state(spec: StoreSpec | EncoderSpec | CellSpec) -> str:
    if not is_complete(spec):
        return "missing"
    result = {EncoderSpec: "card.json", CellSpec: "score.json"}.get(type(spec))
    found = read_or_none(Path(spec.folder) / result) if result else None
    return "failed" if found and found.get("status") == "failed" else "done"


def collect_garbage(studies: list[str], really: bool) -> None:
    """Print the keyed results that none of the studies refers to, and remove them if `really`. Manifests stay."""
    files = studies or [
        str(path) for path in [Path("params.yaml"), *sorted(Path("studies").glob("*.yaml"))] if path.exists()
    ]
    if not files:
        raise UserError(
            "there is no study here to keep; run this in the project's folder, or name the study files to keep"
        )
    kept = _keys_of(files)
    keyed = sorted(
        folder for pattern in KEYED for folder in Path().glob(pattern) if _is_keyed(folder) and folder.name not in kept
    )
    fingerprints = _unused_fingerprints(files)
    abandoned = [folder for folder in sorted(Path().glob("data/stores/*/.*")) if is_abandoned(folder)]
    going = keyed + abandoned
    size = sum(file.stat().st_size for folder in going for file in folder.rglob("*") if file.is_file())
    size += sum(file.stat().st_size for file in fingerprints)
    for path in going + fingerprints:
        print(path)
    lists = f" and {len(fingerprints)} lists of files" if fingerprints else ""
    print(f"{len(going)} results{lists}, {size / 1e6:.1f} MB, belong to none of: {', '.join(files)}")
    if not really:
        print("nothing was removed; `vtabflow gc --yes` removes them")
        return
    for folder in abandoned:
        with try_locked(folder, folder=True) as free:
            if free:
                shutil.rmtree(folder)
    for folder in keyed:
        shutil.rmtree(folder)
        folder.with_suffix(".json").unlink(missing_ok=True)
    for file in fingerprints:
        file.unlink(missing_ok=True)


def _unused_fingerprints(studies: list[str]) -> list[Path]:
    """What is kept in scratch of folders of images that no study names, or that are gone."""
    kept = set().union(*(caches_of(load(file), Path()) for file in studies))
    old = Path("scratch/fingerprints.json")  # of versions that kept all folders in one file
    found = [old] if old.exists() else []
    for file in sorted(FINGERPRINTS.glob("*.jsonl")):
        of = of_what(file)
        if file not in kept or of is None or not of.exists():
            found.append(file)
    return found


def is_abandoned(folder: Path) -> bool:
    """Whether this is the hidden folder of a store whose process was killed."""
    with try_locked(folder, folder=True) as free:
        return bool(free)


def _keys_of(files: list[str]) -> set[str]:
    """The keys of all results that the studies in these files need."""
    keys: set[str] = set()
    for file in files:
        try:
            study = load(file)
            # Also what is excluded today: its images may be missing only for now, and its results took days.
            plans = plan(with_nothing_excluded(study)), plan(study)
            # What is excluded there too is a folder that cannot be read now: the keys of its results are not known.
            for reason in plans[0].excluded.values():
                raise UserError(reason)
        except UserError as error:
            others = " ".join(name for name in files if name != file)
            raise UserError(
                f"what {file} needs is not known ({error}), so nothing is removed; "
                f"name the studies to keep: vtabflow gc {others}"
            ) from error
        for planned in plans:
            keys |= {*planned.stores, *planned.encoders, *planned.cells, planned.page.key}
    return keys


def with_nothing_excluded(study: Study) -> Study:
    """The study with `prepare.tfds.absent: refuse`."""
    tfds = study.prepare.tfds.model_copy(update={"absent": "refuse"})
    return study.model_copy(update={"prepare": study.prepare.model_copy(update={"tfds": tfds})})


def _is_keyed(folder: Path) -> bool:
    return folder.is_dir() and re.fullmatch("[0-9a-f]{16}", folder.name) is not None
