"""Frozen specs on the disk, and which results exist.

Jobs read their specs through this module on machines without pydantic, so the planner is not imported here.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtabflow.contracts.specs import SPECS, CellSpec, EncoderSpec, JobSpec, PageSpec, Spec, StoreSpec
from vtabflow.contracts.typed_json import from_json, to_json
from vtabflow.errors import UserError
from vtabflow.report.completeness import shows_all
from vtabflow.runtime.files import canonical, read_json, write_json

if TYPE_CHECKING:
    from vtabflow.planning.keys import Plan

FOLDER = Path("results/specs")


def freeze(plan: "Plan", root: Path | str = ".") -> None:
    """Write every spec to results/specs/<step>/<key>.json: from here on a job reads its spec and never params.yaml."""
    for spec in plan.specs():
        path, data = Path(root) / spec_path(spec.step, spec.key), to_json(spec)
        if read_or_none(path) != json.loads(canonical(data)):
            write_json(path, data)


def spec_path(step: str, key: str) -> Path:
    """Where a spec is frozen, relative to the project's folder."""
    return FOLDER / step / f"{key}.json"


def load_spec(step: str, path: Path | str) -> Any:
    """The frozen spec in a file: a StoreSpec, EncoderSpec, JobSpec or PageSpec, as `step` says.

    Raises:
        UserError: no such file, not JSON, a spec of another step, or of another version of vtabflow.
    """
    try:
        data = read_json(path)
    except FileNotFoundError as error:
        raise UserError(
            f"there is no spec {path}; snakemake and `vtabflow check` write specs under {FOLDER}"
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); `vtabflow check` writes it again") from error
    if not isinstance(data, dict) or data.get("step") != step:
        raise UserError(f"{path} is not a spec for {step}; specs lie under {FOLDER}/{step}")
    return from_json(SPECS[step], data, str(path))


def is_complete(spec: Spec | CellSpec, root: Path | str = ".") -> bool:
    """Whether a result exists: its small JSON file is written last. A job is complete when all its cells are."""
    root = Path(root)
    match spec:
        case StoreSpec():
            return (root / spec.folder / "manifest.json").exists()
        case EncoderSpec():
            return (root / spec.folder / "card.json").exists()
        case CellSpec():
            return (root / spec.folder / "score.json").exists()
        case JobSpec():
            return all(is_complete(cell, root) for cell in spec.cells)
        case PageSpec():
            cells_exist = all((root / cell.folder / "score.json").exists() for cell in spec.cells)
            return cells_exist and shows_all(spec, root)


def forget_lost(plan: "Plan", root: Path | str = ".") -> None:
    """Remove the receipts of results that are gone (deleted, or not pulled), so that Snakemake makes them again."""
    for spec in plan.specs():
        if not is_complete(spec, root):
            (Path(root) / spec.receipt).unlink(missing_ok=True)
    current = Path(root) / "results/reports" / plan.study.study
    if not (current / "index.html").exists() or not (Path(root) / plan.page.receipt).exists():
        (current / ".current" / plan.page.key).unlink(missing_ok=True)


def read_or_none(path: Path) -> Any:
    """The content of a small JSON file; None if it does not exist or is torn."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None
