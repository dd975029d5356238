"""Real Snakemake runs of a small study: what runs again after each kind of change, and what survives."""

import base64
import os
import random
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from clones import MICRO, ROOT, copy_project

from vtabflow.runtime.files import read_json, write_json


def test_a_study_ends_with_its_page_and_then_there_is_nothing_to_do(finished):
    page = finished.folder / "results/reports/micro/index.html"
    assert page.exists() and (finished.folder / "results/metrics/micro.json").exists()
    assert len(finished.results()["scores"]) == 4
    assert finished.snakemake() == {}


def test_after_a_run_git_has_nothing_to_commit(finished, tmp_path):
    """A run writes only what git ignores: neither new files nor others in the place of committed ones."""
    fresh = copy_project(tmp_path / "fresh", MICRO)
    (fresh.folder / ".gitignore").open("a").write(".home/\n")  # the tests' own
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "project")):
        fresh.run("git", *command)
    where = f"--git-dir={fresh.folder / '.git'}", f"--work-tree={finished.folder}"
    shutil.copy(fresh.folder / ".gitignore", finished.folder)
    assert fresh.run("git", *where, "status", "--porcelain").stdout == ""
    tracked = fresh.run("git", "-C", str(ROOT), "ls-files", "results", "data", "scratch").stdout
    assert tracked == "", "files that a run writes are committed"


def test_file_times_and_lost_records_change_nothing(finished):
    for path in finished.folder.rglob("*"):
        if (path.is_file() and "results" in path.parts) or "data" in path.parts:
            stamp = random.randint(10**9, 17 * 10**8)
            os.utime(path, (stamp, stamp))
    assert finished.snakemake() == {}
    shutil.rmtree(finished.folder / ".snakemake")
    assert finished.snakemake() == {}


def test_learning_rates_run_all_cells_and_no_encoder_and_back_costs_nothing(finished):
    before = finished.results()
    finished.params(finetune__learning_rates=[0.05])
    assert finished.snakemake() == {"finetune": 2, "report": 1, "publish": 1}
    after = finished.results()
    assert after["encoders"] == before["encoders"] and after["stores"] == before["stores"]
    assert len(after["scores"] - before["scores"]) == 4
    finished.params(finetune__learning_rates=MICRO["finetune"]["learning_rates"])
    assert finished.snakemake() == {"publish": 1}


def test_a_setting_of_the_report_makes_the_page_alone(finished):
    before = finished.results()
    finished.params(report__theme="dark")
    assert finished.snakemake() == {"report": 1, "publish": 1}
    assert finished.results() == before


def test_a_method_setting_runs_its_encoder_and_its_cells(finished):
    before = finished.results()
    finished.params(pretrain__per_method={"sup-100": {"learning_rate": 0.03}})
    jobs = finished.snakemake()
    assert jobs["pretrain"] == 1 and "prepare" not in jobs
    new = {step: found - before[step] for step, found in finished.results().items()}
    assert len(new["encoders"]) == 1 and len(new["scores"]) == 2 and all("sup-100" in path for path in new["scores"])


def test_the_methods_that_are_not_of_the_study_run_the_same_way(micro):
    """SimCLR and BYOL on the study's network, DINO and MAE on a ViT, from params.yaml to scores."""
    methods = ["simclr", "byol", "dino", "mae"]
    small = {"simclr": {"hidden": 32}, "byol": {"hidden": 32}, "dino": {"hidden": 32, "prototypes": 64}}
    micro.params(methods=methods, tasks=["svhn-standin"], prepare__image_size=32)
    micro.params(pretrain={"steps": 3, "batch": 16, "per_method": {**small, "mae": {"channels": 16, "depth": 1}}})
    assert micro.snakemake() == {"prepare": 2, "pretrain": 4, "finetune": 2, "report": 1, "publish": 1}
    assert {path.split("/")[2] for path in micro.results()["scores"]} == set(methods)
    assert all(0 <= accuracy <= 1 for accuracy in micro.accuracies().values())
    networks = {m: read_json(next(micro.folder.glob(f"results/encoders/{m}/*/card.json")))["network"] for m in methods}
    assert networks == {"simclr": "resnet-small", "byol": "resnet-small", "dino": "vit-small", "mae": "vit-small"}


def test_a_task_added_makes_its_store_and_its_column(finished):
    before = finished.results()
    finished.params(tasks=["dsprites-location-standin", *MICRO["tasks"]])
    jobs = finished.snakemake()
    assert jobs["prepare"] == 1 and "pretrain" not in jobs
    new = {step: found - before[step] for step, found in finished.results().items()}
    assert len(new["stores"]) == 1 and len(new["scores"]) == 2 and all("dsprites" in path for path in new["scores"])


def test_job_size_rules_and_comments_change_nothing(finished):
    finished.params(run__cells_per_job=1)
    assert finished.snakemake() == {}
    rule = finished.folder / "workflow/rules/finetune.smk"
    rule.write_text(rule.read_text().replace("vtabflow finetune", "nice vtabflow finetune"))
    code = finished.folder / "src/vtabflow/finetune/loop.py"
    code.write_text("# a comment\n" + code.read_text())
    assert finished.snakemake() == {}


def test_lost_receipts_are_written_again_without_work(finished):
    scores = finished.results()["scores"]
    stamps = stamps_of(finished, scores)
    shutil.rmtree(finished.folder / "results/jobs")
    assert finished.snakemake() == {}
    for receipt in finished.folder.glob("results/encoders/*/*.json"):
        receipt.unlink()
    finished.snakemake("pretrained")
    finished.snakemake()
    assert stamps_of(finished, scores) == stamps


def test_a_lost_result_is_made_again(finished):
    """A deleted score: its job runs, with the other cells of the job left alone, and the page is made again."""
    lost, *others = sorted(finished.results()["scores"])
    before = read_json(finished.folder / lost / "score.json")["accuracy"]
    stamps = stamps_of(finished, others)
    shutil.rmtree(finished.folder / lost)
    jobs = finished.snakemake()
    assert jobs == {"finetune": 1, "report": 1, "publish": 1}
    assert read_json(finished.folder / lost / "score.json")["accuracy"] == before
    assert stamps_of(finished, others) == stamps
    (finished.folder / "results/reports/micro/index.html").unlink()
    assert finished.snakemake() == {"publish": 1}


def test_a_failed_cell_that_is_run_again_changes_the_page(finished):
    """The score is made to say failed, as a diverged cell does; deleted and made again, the page has to follow."""
    cell = finished.folder / sorted(finished.results()["scores"])[0]
    score = read_json(cell / "score.json")
    page = finished.folder / "results/reports/micro/index.html"
    whole = page.read_bytes()
    write_json(cell / "score.json", {**score, "status": "failed", "accuracy": None, "reason": "for the test"})
    finished.snakemake("-R", "report")
    shutil.rmtree(page.parent)
    finished.snakemake()
    assert b"for the test" in page.read_bytes()
    shutil.rmtree(cell)
    finished.snakemake()
    assert page.read_bytes() == whole


def test_a_receipt_that_a_killed_run_left_marked_as_incomplete(finished):
    """Snakemake 9.27.1 with --rerun-incomplete then runs that job alone, says that all is done, and leaves the rest."""
    receipt = next(path for path in finished.folder.glob("results/encoders/from-scratch/*.json"))
    name = base64.b64encode(receipt.relative_to(finished.folder).as_posix().encode()).decode()
    marker = finished.folder / ".snakemake/incomplete" / name
    marker.parent.mkdir(exist_ok=True)
    marker.touch()
    finished.params(finetune__learning_rates=[0.05])
    assert finished.snakemake() == {"finetune": 2, "report": 1, "publish": 1}


def test_a_forced_run_computes_nothing(finished):
    scores = finished.results()["scores"]
    before = stamps_of(finished, scores)
    finished.snakemake("-F")
    assert stamps_of(finished, scores) == before


def stamps_of(project, scores) -> dict[str, int]:
    return {path: (project.folder / path / "score.json").stat().st_mtime_ns for path in scores}


def test_an_edit_in_mid_run_changes_nothing_of_that_run(micro):
    """params.yaml is edited while jobs run: the run ends as it began, and the next one makes the new settings."""
    running = micro.start("snakemake", "--cores", "1")
    while not list(micro.folder.glob("data/stores/*/*/manifest.json")):
        assert running.poll() is None
        time.sleep(0.1)
    micro.params(finetune__learning_rates=[0.3], finetune__steps=[5])
    assert running.wait(timeout=300) == 0
    rates = {
        t["learning_rate"]
        for path in micro.results()["scores"]
        for t in read_json(micro.folder / path / "score.json")["trials"]
    }
    assert rates == {0.1, 0.01}
    assert micro.snakemake("-n")["finetune"] == 2


def test_ctrl_c_ends_the_children_too(micro):
    running = micro.start("snakemake", "--cores", "2")
    while not list(micro.folder.glob("results/logs/pretrain/*/*.log")) and running.poll() is None:
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(running.pid, signal.SIGINT)  # what a terminal does
    running.wait(timeout=180)
    deadline = time.monotonic() + 10
    while (left := at_work(micro)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
    micro.run("snakemake", "--unlock", "--cores", "1")
    done = micro.run("snakemake", "--cores", "2")
    assert len(micro.accuracies()) == 4, done.stdout + done.stderr


def at_work(project) -> list[str]:
    """Processes whose working directory is the clone."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").resolve() == project.folder.resolve():
                found.append((process / "cmdline").read_text())
    return found


@pytest.mark.slow
def test_kills_at_random_moments_change_no_score(tmp_path, _finished):
    """The whole run is killed again and again; the scores in the end are those of an undisturbed run."""
    study = {**MICRO, "pretrain": {"steps": 40, "batch": 32}, "finetune": {**MICRO["finetune"], "steps": [30]}}
    quiet = copy_project(tmp_path / "quiet", study)
    begun = time.monotonic()
    quiet.snakemake()
    whole = time.monotonic() - begun  # kills are at fractions of it: a fast machine would be through before fixed times
    killed = copy_project(tmp_path / "killed", study)
    killed.env["VTABFLOW_CHECKPOINT_STEPS"] = "5"
    rng = random.Random(0)
    kills = 0
    for _ in range(30):
        running = killed.start("snakemake", "--cores", "2", "--nolock")
        try:
            # The first two early: the undisturbed run may have been slowed by other work on the machine.
            running.wait(timeout=rng.uniform(*((0.1, 0.3) if kills < 2 else (0.2, 0.6))) * whole)
            break
        except Exception:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            kills += 1
    killed.snakemake("--nolock")
    assert not list(killed.folder.glob("results/**/.*json*")), "no torn files are left"
    assert kills >= 2 and killed.accuracies() == quiet.accuracies()
