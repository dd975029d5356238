"""What the rules ask for, and how many cores a job gets."""

import io
import re
import shutil

from clones import MICRO
from PIL import Image

LOST = "results/scores/from-scratch/svhn-standin"


def lose_one_cell(project) -> None:
    """Delete the only score of From-Scratch on SVHN's stand-in."""
    shutil.rmtree(project.folder / LOST)


def test_complete_jobs_are_not_asked_for(finished):
    """A new page needs the cells of all jobs: those that exist are not run, though their receipts are lost."""
    shutil.rmtree(finished.folder / "results/jobs")
    finished.params(report__theme="dark")
    assert finished.snakemake() == {"report": 1, "publish": 1}


def test_a_job_asks_for_the_stores_and_encoders_of_its_missing_cells_alone(finished):
    """One job holds all four cells, one is lost: the other encoder and the other task's store are not made again."""
    finished.params(run__cells_per_job=4)
    lose_one_cell(finished)
    shutil.rmtree(finished.folder / "data")
    shutil.rmtree(finished.folder / "results/encoders/sup-100")
    assert finished.snakemake() == {"prepare": 1, "finetune": 1, "report": 1, "publish": 1}
    assert {path.split("/")[2] for path in finished.results()["stores"]} == {"svhn-standin"}
    assert {path.split("/")[2] for path in finished.results()["encoders"]} == {"from-scratch"}


def test_an_encoder_that_exists_asks_for_no_upstream(finished):
    """A lost receipt of an encoder is written again, without the upstream's store, which only training needs."""
    shutil.rmtree(finished.folder / "results/scores/sup-100")
    shutil.rmtree(finished.folder / "data/stores/upstream-standin")
    for receipt in finished.folder.glob("results/encoders/sup-100/*.json"):
        receipt.unlink()
    assert finished.snakemake() == {"pretrain": 1, "finetune": 2, "report": 1, "publish": 1}
    assert not (finished.folder / "data/stores/upstream-standin").exists()
    assert len(finished.results()["scores"]) == 4


def test_a_clone_that_pulled_the_manifests_has_its_stores_prepared(finished):
    """`snakemake prepared` looks at manifests: the stores themselves are made when a job needs them."""
    shutil.rmtree(finished.folder / "data/stores")
    assert finished.snakemake("prepared") == {}
    shutil.rmtree(finished.folder / "data/manifests")
    assert finished.snakemake("prepared") == {"prepare": 3}


def test_one_failed_job_does_not_stop_the_others(micro):
    """The broken folder comes first; with one core the other jobs all start after it has failed."""
    for number, label in enumerate(("a", "b")):
        (micro.folder / "own" / label).mkdir(parents=True)
        for i in range(8):  # the header is good, so that planning finds nothing wrong
            image = Image.effect_noise((64, 64), 50 + number + 2 * i)
            image.save(buffer := io.BytesIO(), "png")
            (micro.folder / "own" / label / f"{i}.png").write_bytes(buffer.getvalue()[:2000])
    micro.params(tasks=["own", *MICRO["tasks"]], budgets=["full"], prepare__folders={"own": {"path": "own"}})
    done = micro.run("snakemake", "--cores", "1", check=False)
    assert done.returncode != 0
    assert {path.split("/")[3] for path in micro.results()["scores"]} == set(MICRO["tasks"])
    assert len(micro.results()["scores"]) == 4


def test_concurrent_jobs_share_the_cores(finished):
    """Threads of a job = cores / concurrent jobs, which --resources gpu=N limits."""
    lose_one_cell(finished)
    for cores, gpus, threads in ((8, 2, 4), (8, 4, 2), (4, 1, 4), (2, 4, 1)):
        command = ("snakemake", "-n", "-p", "--cores", str(cores), "--resources", f"gpu={gpus}")
        shown = finished.run(*command).stdout
        assert re.findall(r"vtabflow finetune .*--threads (\d+)", shown) == [str(threads)], (cores, gpus)
