"""Plans the study once, at the start of a run, and freezes it into specs; the rules know only keys and specs."""

import sys
from pathlib import Path

from vtabflow.contracts.specs import ImagenetSettings, TfdsSettings
from vtabflow.errors import RunError, UserError
from vtabflow.planning import keys, state
from vtabflow.planning.study import load
from vtabflow.planning.workflow_config import study_file
from vtabflow.runtime import devices
from vtabflow.runtime.encoding import use_utf8


def planned():
    """The plan of params.yaml, or of the study named by --config params=FILE."""
    use_utf8()
    try:
        plan = keys.plan(load(study_file(config, workflow.configfiles)))
        state.freeze(plan)
        state.forget_lost(plan)
    except (UserError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)
    return plan


def spec_of(step, key):
    return state.load_spec(step, state.spec_path(step, key))


def is_downloaded(wildcards):
    """Whether a store comes from archives that may be large: hours to download, and work for all cores."""
    settings = spec_of("prepare", wildcards.key).settings
    return isinstance(settings, (TfdsSettings, ImagenetSettings))


def prepare_threads(wildcards):
    """All cores for what is decoded and resized in parallel; one for what is drawn."""
    cores = workflow.resource_settings.cores
    if spec_of("prepare", wildcards.key).source == "procedural":
        return 1
    return cores if isinstance(cores, int) else 16


# The inputs of a job are what its missing results need: none of what exists, so that file times decide nothing.
def store_of_encoder(wildcards):
    """The upstream's store, if the encoder is still to be trained on it."""
    spec = spec_of("pretrain", wildcards.key)
    return (
        [] if state.is_complete(spec) or not spec.upstream else [spec.upstream.receipt]
    )


def inputs_of_job(wildcards):
    """The encoders and stores of the job's missing cells."""
    cells = spec_of("finetune", wildcards.key).cells
    missing = [cell for cell in cells if not state.is_complete(cell)]
    return sorted(
        {cell.encoder.receipt for cell in missing}
        | {cell.store.receipt for cell in missing}
    )


def jobs_of_page(wildcards):
    """Only jobs with a missing cell: what exists is not asked for."""
    return missing_jobs(wildcards) if PLAN and wildcards.key == PLAN.page.key else []


def published_page(wildcards):
    return f"results/reports/{PLAN.study.study}/.current/{PLAN.page.key}"


def missing_stores(wildcards):
    """Stores without a manifest: where the manifest exists, the store itself is made when a job needs it."""
    return [
        spec.receipt
        for spec in PLAN.stores.values()
        if not Path(spec.manifest).exists()
    ]


def missing_encoders(wildcards):
    return [
        spec.receipt for spec in PLAN.encoders.values() if not state.is_complete(spec)
    ]


def missing_jobs(wildcards):
    return [spec.receipt for spec in PLAN.jobs.values() if not state.is_complete(spec)]


def job_threads(wildcards):
    """Cores / concurrent jobs: as many jobs run as --resources gpu=N allows, else as there are GPUs, else one per core."""
    cores = workflow.resource_settings.cores
    if not isinstance(cores, int):
        return 4  # on a cluster the profile says (set-threads)
    limit = workflow.global_resources.get("gpu")
    jobs = (limit and limit.value) or len(devices.pool()) or cores
    return max(1, cores // int(jobs))


# A job on a cluster's node reads this file again, maybe after params.yaml was edited: it finds its spec by its key and plans nothing.
PLAN = planned() if workflow.is_main_process else None
