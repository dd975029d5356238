"""What `snakemake --config` and `--configfile` may say: which study file is meant, by the one key `params`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vtabflow.errors import UserError, nearest
from vtabflow.planning.study import Study


def study_file(config: Mapping[str, Any], configfiles: Sequence[Path | str] = ()) -> str:
    """The study file that a configuration of Snakemake names; params.yaml if it names none.

    Args:
        config: the keys and values of --config and of the files of --configfile together.
        configfiles: the files of --configfile.

    Raises:
        UserError: any other key, since its value would change nothing.
    """
    unknown = [key for key in config if key != "params"]
    required = {name for name, entry in Study.model_fields.items() if entry.is_required()}
    if configfiles and required <= set(unknown):
        file = _shown(configfiles[-1])
        raise UserError(f"--configfile {file} holds a study, which is not read this way; write --config params={file}")
    for key in unknown:
        if key in Study.model_fields:
            raise UserError(
                f"{key} is a setting of the study and is not read from --config; change it in the study file "
                "(params.yaml, or the one of --config params=FILE), or run a variant by `dvc exp run -S`"
            )
        raise UserError(
            f"--config has no key {key}{nearest(key, ['params'])}; its one key is params, a study file: "
            "--config params=FILE"
        )
    file = config.get("params", "params.yaml")
    if not isinstance(file, str) or not file:
        given = "" if file is None else file
        raise UserError(f"--config params={given} names no study file; write --config params=FILE")
    return file


def _shown(path: Path | str) -> str:
    """The path as it was given, or nearly: relative if it is below the working directory."""
    path = Path(path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
