"""What bad input gets: one sentence, exit code 2, no traceback, nothing half-written."""

import contextlib
import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vtabflow.planning import overview
from vtabflow.runtime.files import read_json


def vtabflow(project, *arguments: str) -> subprocess.CompletedProcess:
    return project.run("vtabflow", *arguments, check=False)


def sentence(done: subprocess.CompletedProcess, code: int = 2) -> str:
    assert done.returncode == code, done.stderr[-2000:]
    assert "Traceback" not in done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def images(folder: Path, **classes: int) -> None:
    rng = np.random.default_rng(0)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(folder / name / f"{i}.png")


def own_task(micro, **folder: object) -> None:
    micro.params(tasks=["own-task"], prepare__folders={"own-task": {"path": "own", **folder}})


def test_a_typo(micro):
    micro.params(finetune__learnin_rates=[0.1])
    for command in (["vtabflow", "check"], ["snakemake", "--cores", "1"], ["snakemake", "-n"]):
        message = sentence(micro.run(*command, check=False))
        assert "params.yaml" in message and "did you mean learning_rates?" in message
    assert not (micro.folder / "results").exists() and not (micro.folder / "data").exists()


def test_a_setting_on_the_command_line_of_snakemake(micro):
    """Neither --config nor --configfile changes settings; what would be ignored is refused."""
    message = sentence(micro.run("snakemake", "-n", "--config", 'finetune={"batch": 4}', check=False))
    assert "finetune is a setting of the study" in message and "params.yaml" in message
    message = sentence(micro.run("snakemake", "--cores", "1", "--configfile", "studies/smoke.yaml", check=False))
    assert "write --config params=studies/smoke.yaml" in message
    assert not (micro.folder / "results").exists()


def test_make_report_with_a_typo_and_without_a_study(micro):
    venv = str(Path(sys.executable).parents[1])
    micro.params(methods=["sup-10o"])
    message = sentence(micro.run("make", "report", f"VENV={venv}", "-o", f"{venv}/.made", check=False))
    assert "no method sup-10o (did you mean sup-10?)" in message
    message = sentence(micro.run("make", "report", "STUDY=nothing", f"VENV={venv}", "-o", f"{venv}/.made", check=False))
    assert "there is no study file studies/nothing.yaml" in message


def test_make_report_says_why_a_job_failed(micro):
    """On the terminal, not in a log alone; and `vtabflow status` again later."""
    images(micro.folder / "own", only=6)
    own_task(micro)
    assert "own has one class, only" in sentence(vtabflow(micro, "check"))
    images(micro.folder / "own", other=6)
    whole = (micro.folder / "own/other/0.png").read_bytes()
    (micro.folder / "own/other/0.png").write_bytes(whole[: len(whole) // 2])  # which its header does not show
    venv = str(Path(sys.executable).parents[1])
    shown = micro.run("make", "report", f"VENV={venv}", "-o", f"{venv}/.made", check=False)
    assert shown.returncode == 2 and "prepare failed: own: other/0.png is broken" in shown.stdout
    assert "prepare failed: own: other/0.png is broken" in vtabflow(micro, "status").stdout


def test_a_task_without_images(micro):
    own_task(micro)
    assert "there is no folder or zip of images at own" in sentence(vtabflow(micro, "check"))
    (micro.folder / "own").mkdir()
    assert "own has no images in class folders" in sentence(vtabflow(micro, "check"))
    (micro.folder / "own/cats").mkdir()
    (micro.folder / "own/cats/readme.txt").write_text("no image")
    done = micro.run("snakemake", "--cores", "2", check=False)
    shown = done.stdout + done.stderr
    assert done.returncode and "readme.txt" in shown and "Traceback" not in shown
    assert not any("own-task" in store for store in micro.results()["stores"])


def test_a_class_with_too_few_images(micro):
    images(micro.folder / "own", cats=30, dogs=30, emus=2)
    own_task(micro)
    done = micro.run("snakemake", "prepared", "--cores", "2", check=False)
    assert done.returncode and "emus" in done.stdout + done.stderr and "Traceback" not in done.stdout + done.stderr
    assert not any("own-task" in store for store in micro.results()["stores"])
    assert not list(micro.folder.glob("data/stores/own-task/*"))


def test_a_store_that_was_changed_is_refused_by_name(finished):
    store = next(finished.folder.glob("data/stores/svhn-standin/*/train.npy"))
    data = bytearray(store.read_bytes())
    data[-7] ^= 1
    os.chmod(store, 0o644)
    store.write_bytes(data)
    before = finished.results()["scores"]
    finished.params(finetune__learning_rates=[0.02])
    done = finished.run("snakemake", "--cores", "2", check=False)
    shown = done.stdout + done.stderr
    named = str(store.parent.relative_to(finished.folder)) in shown and store.name in shown
    assert done.returncode and named and "does not match the manifest" in shown and "Traceback" not in shown
    new = finished.results()["scores"] - before
    assert new and all("clevr" in path for path in new), "the other task goes on"


def test_weights_of_another_network_are_refused(finished):
    encoder = next(finished.folder.glob("results/encoders/sup-100/*/encoder.safetensors"))
    from safetensors.torch import load_file, save_file

    weights = load_file(encoder)
    name = next(iter(weights))
    weights["other." + name] = weights.pop(name)
    save_file(weights, encoder)
    finished.params(finetune__learning_rates=[0.02])
    done = finished.run("snakemake", "--cores", "2", check=False)
    shown = done.stdout + done.stderr
    assert done.returncode and encoder.name in shown and "resnet-small" in shown and "Traceback" not in shown


def test_a_loss_that_is_no_number(micro):
    """A far too high learning rate: its trial is recorded as failed; if all are, the cell is; the page is made."""
    # With a weight decay of 10 the weights grow 10^7-fold a step: beyond float32 within eight.
    micro.params(finetune__learning_rates=[0.01, 1e6], finetune__weight_decay=10.0, finetune__steps=[8])
    micro.snakemake()
    for path in micro.results()["scores"]:
        score = read_json(micro.folder / path / "score.json")
        assert score["status"] == "ok" and score["selected"]["learning_rate"] == 0.01
    micro.params(finetune__learning_rates=[1e6])
    micro.snakemake()
    scores = [read_json(micro.folder / path / "score.json") for path in micro.results()["scores"]]
    failed = [score for score in scores if score["status"] == "failed"]
    assert len(failed) == 4 and all("not finite" in score["reason"] for score in failed)
    page = (micro.folder / "results/reports/micro/index.html").read_text()
    assert "failed" in page
    assert "failed" in vtabflow(micro, "status").stdout


def test_gc_removes_what_no_study_needs_and_nothing_else(finished):
    before = finished.results()
    finished.params(finetune__learning_rates=[0.02])
    # What two makers of stores have, one killed and one at work.
    torn, busy = (finished.folder / "data/stores/svhn-standin" / f".0123456789abcdef.host.{name}" for name in "ab")
    torn.mkdir()
    busy.mkdir()
    lock = os.open(busy, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    done = vtabflow(finished, "gc", "params.yaml")
    assert torn.exists() and str(torn.relative_to(finished.folder)) in done.stdout
    assert str(busy.relative_to(finished.folder)) not in done.stdout
    assert done.returncode == 0 and "nothing was removed" in done.stdout and finished.results() == before
    assert {line for line in done.stdout.splitlines() if line.startswith("results/scores/")} == before["scores"]
    assert vtabflow(finished, "gc", "--yes", "params.yaml").returncode == 0
    assert busy.exists() and not torn.exists()
    os.close(lock)
    busy.rmdir()
    after = finished.results()
    assert after["scores"] == set() and after["stores"] == before["stores"] and after["encoders"] == before["encoders"]
    shutil.rmtree(finished.folder / "studies")
    finished.params(prepare__folders={"birds": {"path": "absent"}}, tasks=["birds"])
    assert "so nothing is removed" in sentence(vtabflow(finished, "gc", "--yes"))


def test_gc_leaves_a_store_whose_making_began_meanwhile(micro, monkeypatch):
    """A maker locks its hidden folder just after making it: free when gc lists, locked when it removes."""
    new, torn = (micro.folder / "data/stores/svhn-standin" / f".0123456789abcdef.host.{name}" for name in "ab")
    new.mkdir(parents=True)
    torn.mkdir()
    locks = []

    class Terminal(io.StringIO):
        def write(self, text: str) -> int:
            if "results" in text and not locks:
                locks.append(os.open(new, os.O_RDONLY))
                fcntl.flock(locks[0], fcntl.LOCK_EX)
            return super().write(text)

    monkeypatch.chdir(micro.folder)
    with contextlib.redirect_stdout(Terminal()) as shown:
        overview.collect_garbage(["params.yaml"], really=True)
    os.close(locks[0])
    assert str(new.relative_to(micro.folder)) in shown.getvalue() and new.exists() and not torn.exists()


def test_bench_runs(micro):
    done = vtabflow(micro, "bench", "--network", "resnet-small", "--size", "32", "--batch", "8", "--steps", "2")
    assert json.loads(done.stdout)["images_per_second"]["loop"] > 0
    assert vtabflow(micro, "status", "--what").returncode == 2
    done = micro.run("bash", "-o", "pipefail", "-c", "vtabflow status | true", check=False)
    assert done.returncode == 141 and done.stderr == "", "as any command whose reader has gone"


def test_a_subfolder_is_not_taken_for_a_project(micro):
    """In docs/ or src/vtabflow the project is found; files are meant from where the command is given."""
    folder = micro.folder / "docs/notes"
    folder.mkdir(parents=True)
    shutil.copy(micro.folder / "studies/smoke.yaml", folder / "mine.yaml")
    for words, says in (
        (["check"], "micro: 2 methods"),
        (["check", "mine.yaml"], "smoke: 4 methods"),
        (["check", "studies/smoke.yaml"], "smoke: 4 methods"),
        (["gc", "mine.yaml"], "belong to none of: docs/notes/mine.yaml"),
    ):
        done = micro.run("env", "-C", str(folder), "vtabflow", *words)
        assert says in done.stdout and done.stderr == f"in the project {micro.folder}\n"
    spec = next(micro.folder.glob("results/specs/prepare/*.json"))
    micro.run("env", "-C", str(folder), "vtabflow", "prepare", "--spec", os.path.relpath(spec, folder))
    assert len(micro.results()["stores"]) == 1 and os.listdir(folder) == ["mine.yaml"]
    (folder / "params.yaml").write_text((micro.folder / "studies/smoke.yaml").read_text())
    done = micro.run("env", "-C", str(folder), "vtabflow", "check")
    assert done.stderr == "" and (folder / "results/specs").exists(), "a folder with a params.yaml is a project"


def test_a_locale_that_is_not_utf_8(micro):
    """The same names, digests and keys; the file names and params.yaml are UTF-8 as ever."""
    images(micro.folder / "Vögel", Möwe=8, Ente=8)
    micro.params(tasks=["birds"], methods=["from-scratch"], budgets=["full"])
    micro.params(prepare__folders={"birds": {"path": "Vögel", "display": "Vögel"}})
    expected = vtabflow(micro, "check").stdout
    specs = {path.name: path.read_bytes() for path in micro.folder.glob("results/specs/*/*.json")}
    assert "Möwe" in expected
    shutil.rmtree(micro.folder / "results")
    shutil.rmtree(micro.folder / "scratch")
    micro.env |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(["vtabflow", "check"], cwd=micro.folder, env=micro.env, capture_output=True)
    assert done.stdout.decode() == expected and done.stderr == b""
    assert {path.name: path.read_bytes() for path in micro.folder.glob("results/specs/*/*.json")} == specs
    spec = next(micro.folder.glob("results/specs/prepare/*.json"))
    micro.run("vtabflow", "prepare", "--spec", str(spec))
    (manifest,) = micro.folder.glob("data/manifests/birds/*.json")
    assert read_json(manifest)["class_names"] == {"birds": ["Ente", "Möwe"]}
    shutil.rmtree(micro.folder / "results")
    assert "prepare" not in micro.snakemake("-n")
    assert {path.name: path.read_bytes() for path in micro.folder.glob("results/specs/*/*.json")} == specs


def test_a_home_that_cannot_be_written(micro):
    micro.env["HOME"] = "/proc/nohome"
    assert micro.snakemake("-n")["finetune"] == 2
    assert vtabflow(micro, "status").returncode == 0


def test_specs_that_are_none(micro, tmp_path):
    assert "there is no spec" in sentence(vtabflow(micro, "finetune", "--spec", "absent.json"))
    (tmp_path / "a.json").write_text("{")
    assert "not JSON" in sentence(vtabflow(micro, "finetune", "--spec", str(tmp_path / "a.json")))
    (tmp_path / "a.json").write_text('{"step": "prepare"}')
    assert "not a spec for finetune" in sentence(vtabflow(micro, "finetune", "--spec", str(tmp_path / "a.json")))


def test_no_permission(micro):
    """A data folder that may not be written; root first gives up its right to write everywhere."""
    assert vtabflow(micro, "check").returncode == 0
    spec = next(micro.folder.glob("results/specs/prepare/*.json"))
    (micro.folder / "data").mkdir(mode=0o555)
    command = ["vtabflow", "prepare", "--spec", str(spec)]
    if os.getuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("as root this needs setpriv")
        command = ["setpriv", "--bounding-set=-dac_override", *command]
    message = sentence(micro.run(*command, check=False), code=1)
    assert "data" in message and "ermission" in message and os.listdir(micro.folder / "data") == []


@pytest.mark.skipif(os.getuid() != 0, reason="needs to mount a small disk")
def test_a_full_disk(micro):
    """A disk of 200 kB: the store does not fit; one sentence, nothing half-written; with more room the run goes on."""
    assert vtabflow(micro, "check").returncode == 0
    spec = next(
        path
        for path in micro.folder.glob("results/specs/prepare/*.json")
        if read_json(path)["dataset"] == "svhn-standin"
    )
    data = micro.folder / "data"
    data.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(data)], capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    try:
        message = sentence(vtabflow(micro, "prepare", "--spec", str(spec)), code=1)
        assert "No space left" in message
        assert not [path for path in data.rglob("*") if path.is_file()]
        subprocess.run(["mount", "-o", "remount,size=50m", str(data)], check=True)
        assert vtabflow(micro, "prepare", "--spec", str(spec)).returncode == 0
    finally:
        subprocess.run(["umount", str(data)], check=True)
