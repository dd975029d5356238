"""Paths of a study inside the copy of the project in which `dvc exp run --temp` and `--queue` run."""

from pathlib import Path

COPIES = (".dvc", "tmp", "exps")  # DVC copies the project to a folder somewhere below this one


def located(path: Path | str) -> Path:
    """Where a path of the study is: relative to the working directory or, in DVC's copy, to the project itself.

    The copy holds what git tracks, and lies elsewhere than the project: images in ../birds or data/manual are not found
    from there. What the copy has is taken from the copy.
    """
    path = Path(path)
    if path.is_absolute() or path.exists():
        return path
    project = copied_project(Path.cwd())
    return path if project is None else project / path


def copied_project(folder: Path) -> Path | None:
    """The project of which `folder` is DVC's copy; None if it is none."""
    parts = folder.parts
    for end in range(len(parts) - 1, len(COPIES), -1):
        if parts[end - len(COPIES) : end] == COPIES:
            return Path(*parts[: end - len(COPIES)])
    return None
