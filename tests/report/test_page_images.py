"""What the page and the tables say of the images: unbalanced classes, folders, left-out files, archives, audits."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_fakes import METHODS, OWN, PHOTOGRAPHS, SCANS, TASKS, page_spec, write_manifest, write_score, write_scores

from vtabflow.contracts.results import CellCounts, Remark, SkippedFile, StoreAudit
from vtabflow.contracts.specs import LeftOut
from vtabflow.contracts.typed_json import to_json
from vtabflow.errors import RunError
from vtabflow.report import page, scores, step
from vtabflow.report.balance import Balance, with_balanced_accuracy
from vtabflow.report.cells import count_cells, read_cells
from vtabflow.report.images import read_images
from vtabflow.report.stats import Results
from vtabflow.runtime.files import write_json

FISH = replace(SCANS, id="fish", display="Fish", dataset="fish", manifest="data/manifests/fish/fedcba9876543210.json")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def study(*tasks, methods=METHODS[:2], budgets=("full",), **changes):
    return page_spec(
        tasks=tasks, methods=methods, budgets=budgets, seeds=changes.pop("seeds", (0,)), upstream=PHOTOGRAPHS, **changes
    )


def html_of(spec):
    """The page without figures, from the files that exist."""
    results = Results(spec, with_balanced_accuracy(read_cells(spec)))
    return page.render(spec, results, read_images(spec, results.task_display), [], CellCounts(0, 0, 0))


def plain(html):
    """The words of a part of the page."""
    words = re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", html, flags=re.S).replace("&nbsp;", " ")
    return re.sub(r"\s+([.,:;])", r"\1", re.sub(r"\s+", " ", words))


def caveats(html):
    """The sentences about the images that stand next to the answer."""
    answer = html[html.index('<section class="answer"') : html.index("</section>")]
    return [
        plain(item).strip()
        for item in re.findall(r"<li>(.*?)</li>", answer.partition("What to know of the images")[2], re.S)
    ]


def always_negative(spec, cell):
    """A cell whose model answers class 0 to 190 images of class 0 and 10 of class 1, with its predictions."""
    write_score(spec, cell, 0.95, n_test=200)
    arrays = {"test_pred": np.zeros(200, np.int32), "test_true": np.repeat([0, 1], [190, 10]).astype(np.int32)}
    np.savez_compressed(Path(cell.folder, "predictions.npz"), **arrays)


def test_always_answering_the_commonest_class_reads_as_that():
    spec = study(SCANS)
    write_manifest(SCANS, [190, 10], names=("neg", "pos"))
    scratch, rotation = spec.cells
    always_negative(spec, scratch)
    write_score(spec, rotation, 0.97, balanced=0.8, n_test=200)
    html = html_of(spec)
    (sentence,) = caveats(html)
    assert sentence == (
        "Scans: the classes are unbalanced. Of 200 test images, 190 are neg and 10 are pos, so always answering neg "
        "gives 95.0 % accuracy (guessing 50.0 %) and 50.0 % balanced accuracy. At budget full, From-Scratch (95.0 %) "
        "is no better than always answering the commonest class."
    )
    text = plain(html)
    assert "Always the commonest class 95.0 / 50.0 Rotation 97.0 / 80.0 From-Scratch 95.0 / 50.0" in text
    assert "own Scans 2 50.0 95.0 200 10 to 190 1,600 + 400" in text
    assert "Balanced accuracy, all" in text and "95.00 50.00" in text


def test_no_method_better_than_one_answer_is_said_for_each_budget():
    spec = study(SCANS, budgets=("1k", "full"), seeds=(0, 1))
    write_manifest(SCANS, [190, 10], names=("neg", "pos"))
    means = {("from-scratch", "1k"): 0.94, ("rotation", "1k"): 0.95, ("from-scratch", "full"): 0.96}
    write_scores(spec, lambda c: means.get((c.method, c.budget), 0.949 + 0.004 * c.seed))
    (sentence,) = caveats(html_of(spec))
    assert (
        "At budget 1k, From-Scratch (94.0 %) and Rotation (95.0 %) are no better than always answering the commonest "
        "class: no method is better." in sentence
    )
    assert "At budget full" not in sentence  # 96 and the mean of 94.9 and 95.3


def test_balanced_classes_are_not_remarked_on():
    """Guessing and the commonest class stand side by side in the table of every task."""
    spec = study(SCANS)
    write_manifest(SCANS, [104, 96])
    write_scores(spec, lambda c: 0.9)
    html = html_of(spec)
    assert caveats(html) == [] and "unbalanced classes" not in html and "Balanced" not in plain(html)
    assert "Scans 2 50.0 52.0 500 96 to 104" in plain(html)
    write_manifest(SCANS, [110, 90])  # 5 points more than guessing
    write_scores(spec, lambda c: 0.9, skip=lambda c: c.method == "rotation")
    (sentence,) = caveats(html_of(spec))
    assert "110 are class 0 and 90 are class 1" in sentence and "no better" not in sentence


def test_a_class_without_test_images_counts_in_guessing_and_not_in_balanced_accuracy():
    spec = study(replace(SCANS, classes=3))
    write_manifest(SCANS, [30, 0, 10], names=("a", "b", "c"))
    write_scores(spec, lambda c: 0.9)
    (sentence,) = caveats(html_of(spec))
    assert "30 are a and 10 are c, so always answering a gives 75.0 % accuracy (guessing 33.3 %) and 50.0 %" in sentence
    assert "10 to 30 1 without images" in plain(html_of(spec))


def test_balanced_accuracy_of_older_scores_is_read_from_their_predictions():
    spec = study(SCANS, seeds=(0, 1, 2, 3))
    cells = [cell for cell in spec.cells if cell.method == "from-scratch"]
    for cell in cells[:3]:
        always_negative(spec, cell)
    write_score(spec, cells[1], 0.5)  # not the score of these predictions
    Path(cells[2].folder, "predictions.npz").write_bytes(b"torn")
    write_score(spec, cells[3], 0.9, balanced=0.25)
    for cell in cells[:1]:  # written before the field was there
        path = Path(cell.folder, "score.json")
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "balanced_accuracy"}))
    made = {cell.seed: cell.balanced_accuracy for cell in with_balanced_accuracy(read_cells(spec)) if cell.accuracy}
    assert made == {0: 0.5, 1: None, 2: None, 3: 0.25}


def test_tables_have_balanced_accuracy_and_what_was_trained_on():
    spec = study(SCANS, FISH, budgets=("1k",), seeds=(0, 1))
    balanced = {("scans", 0): 0.5, ("scans", 1): 0.7, ("fish", 0): 0.9, ("fish", 1): 0.95}
    for cell in spec.cells:
        value = balanced[cell.task, cell.seed] if cell.method == "rotation" else None
        write_score(spec, cell, 0.95, images=(720, 240), balanced=value)
    results = Results(spec, read_cells(spec))
    table = scores.scores_table(results.cells)
    assert set(zip(table["n_train"], table["n_val"], strict=True)) == {(720, 200)}
    assert table.loc[table["method"] == "rotation", "balanced_accuracy"].tolist() == [0.5, 0.7, 0.9, 0.95]
    rows = scores.summary_table(results).set_index(["method", "scope"])["balanced"]
    assert rows["rotation", "all"] == pytest.approx((0.6 + 0.925) / 2) and pd.isna(rows["from-scratch", "all"])
    summary = scores.summary_json(spec, results, count_cells(results.cells))["budgets"]["1k"]
    assert summary["rotation"]["balanced"] == 0.7625 and "balanced" not in summary["from-scratch"]
    assert Balance(results).task("rotation", "1k", "fish") == pytest.approx(0.925)
    assert "720 + 200" in plain(html_of(spec)) and "With 920 labelled examples" in html_of(spec)


def test_a_seed_without_balanced_accuracy_leaves_its_task_without():
    spec = study(SCANS, methods=METHODS[:1], seeds=(0, 1))
    for cell in spec.cells:
        write_score(spec, cell, 0.9, balanced=0.6 if cell.seed else None)
    balance = Balance(Results(spec, read_cells(spec)))
    assert balance.task("from-scratch", "full", "scans") is None and balance.mean("from-scratch", "full") is None


def test_a_mean_of_balanced_accuracy_is_over_the_tasks_of_the_mean_or_not_given():
    spec = study(SCANS, FISH)
    for cell in spec.cells:
        if cell.method == "rotation":
            write_score(spec, cell, 0.95, balanced=0.6 if cell.task == "scans" else None)
        elif cell.task == "scans":
            write_score(spec, cell, 0.95, balanced=0.8)
    balance = Balance(Results(spec, read_cells(spec)))
    assert balance.mean("rotation", "full") is None and balance.mean("from-scratch", "full") == 0.8
    assert balance.task("from-scratch", "full", "fish") is None and balance.mean("vae", "full") is None


REMARKS = (
    Remark("test-in-train", 3, "3 of 92 test images are in train too, such as test/neg/1.png (train/neg/7.png)"),
    Remark("1k-val-classes", 1, "1 of 2 classes has no image among the first 200 of val, which budget 1k uses (pos)"),
    Remark("left-out-folder", 9, "unlabeled/ lies beside train/ and is left out (9 files)"),
)


def write_folder(task=SCANS, **changes):
    """A manifest with all that a folder can have: a layout, remarks, files that were left out."""
    reasons = [
        "is not an image",
        "is broken (image file is truncated (3 bytes))",
        "is broken (no end)",
        "is a Git LFS pointer: run `git lfs pull`",
    ]
    skipped = tuple(SkippedFile(f"neg/{i:03}.png", reasons[i % 4]) for i in range(24))
    layout = "2 classes, 300 images; train 100, val 100, test 100, split here, seeded"
    fields = {"layout": layout, "remarks": REMARKS, "skipped": skipped, **changes}
    write_manifest(task, [60, 40], names=("neg", "pos"), **fields)


def test_what_was_understood_of_a_folder_is_on_the_page():
    spec = study(SCANS, OWN)
    write_folder()
    write_scores(spec, lambda c: 0.99)
    html = html_of(spec)
    text = plain(html)
    start = text.index("What was understood of your folders")
    block = text[start : text.index("Classes, images and source of each task")]
    assert "Scans from scans.zip: 2 classes, 300 images; train 100, val 100, test 100, split here, seeded. " in block
    assert "Classes over all splits: the largest is neg with 180 images, the smallest pos with 120." in block
    assert "Classes of the test images: the largest is neg with 60 images, the smallest pos with 40." in block
    assert "Left out: 24 of 324 files: 12 × broken, 6 × not an image, 6 × a Git LFS pointer." in block
    assert (
        "The first 20 names neg/000.png is not an image neg/001.png is broken (image file is truncated (3 bytes))"
        in block
    )
    assert "neg/019.png" in block and "neg/020.png" not in html
    assert "Unlabeled/ lies beside train/ and is left out (9 files)." in block and "3 of 92 test images" in block
    assert "/home/somebody" not in html and "first 200 of val" not in html  # no budget 1k here


def test_remarks_that_touch_the_answer_stand_next_to_it():
    spec = study(SCANS, budgets=("1k", "full"))
    write_folder()
    write_scores(spec, lambda c: 0.99)
    unbalanced, leak, classes = caveats(html_of(spec))
    assert unbalanced.startswith("Scans: the classes are unbalanced.")
    assert leak == f"Scans: {REMARKS[0].text}." and classes == f"Scans: {REMARKS[1].text}."


def test_names_from_a_folder_cannot_become_html():
    evil = "<img src=x onerror=alert(1)>"
    task = replace(SCANS, display=evil)
    spec = study(task)
    write_manifest(
        task,
        [90, 10],
        names=(evil, "b"),
        settings={"path": f"/x/{evil}"},
        layout=evil,
        remarks=(Remark("test-in-train", 1, evil), Remark("other", 1, evil)),
        skipped=(SkippedFile(evil, evil),),
    )
    write_json(Path(task.manifest).with_suffix(".audit.json"), to_json(StoreAudit("0", (evil,), (evil,))))
    write_scores(spec, lambda c: 0.5)
    html = html_of(spec).partition("<script")[0]
    assert "<img" not in html and html.count("&lt;img src=x") > 8


def test_every_left_out_file_is_in_skipped_csv_beside_the_page():
    two = replace(SCANS, id="scans-side", display="Side", dataset="scans")  # a second task of the same store
    spec = study(SCANS, two)
    write_folder()
    write_scores(spec, lambda c: 0.9)
    always_negative(spec, spec.cells[0])
    step.run(spec)
    step.publish(spec)
    for folder in (Path(spec.folder), Path("results/reports/demo")):
        table = pd.read_csv(folder / "skipped.csv")
        assert list(table.columns) == ["dataset", "file", "reason"] and len(table) == 24
        assert table["file"].tolist() == [f"neg/{i:03}.png" for i in range(24)] and set(table["dataset"]) == {"scans"}
        assert 'href="skipped.csv"' in (folder / "index.html").read_text()
        cells = pd.read_csv(folder / "scores.csv").set_index("key")["balanced_accuracy"]
        assert cells[spec.cells[0].key] == 0.5 and cells.count() == 1  # from the predictions


def test_the_upstream_folder_is_shown_too_and_a_manifest_that_is_not_here_is_said():
    upstream = replace(PHOTOGRAPHS, manifest="data/manifests/my-photos/0123456789abcdef.json")
    spec = replace(study(SCANS), upstream=upstream)
    write_manifest(upstream, [60, 40], layout="2 classes, 300 images")
    write_scores(spec, lambda c: 0.9)
    text = plain(html_of(spec))
    assert "My photos (pre-training) from my-photos.zip: 2 classes, 300 images." in text
    assert f"Not shown, since these manifests are not here: {SCANS.manifest}." in text
    Path(SCANS.manifest).parent.mkdir(parents=True)
    Path(SCANS.manifest).write_text("{")
    with pytest.raises(RunError, match="0123456789abcdef.json cannot be read"):
        html_of(spec)


def test_archives_that_are_not_the_registered_ones_are_named():
    cifar = replace(
        TASKS[0], source="tfds", display="CIFAR-100", manifest="data/manifests/cifar100/0123456789abcdef.json"
    )
    spec = study(cifar)
    settings = {"builder": "cifar100", "checksums": {"https://a.example/c.tar.gz": "ab" * 32}, "counts": "official"}
    write_scores(spec, lambda c: 0.5)
    write_manifest(cifar, [10] * 47, settings=settings)
    html = html_of(spec)
    (note,) = [plain(note) for note in re.findall(r'<p class="note">(.*?)</p>', html, re.S) if "Archives" in note]
    assert note.strip().startswith(
        "Archives other than the registered ones. CIFAR-100: made from archives that are not those that TensorFlow"
    )
    assert "CIFAR-100 was made from these archives: https://a.example/c.tar.gz, SHA-256 " + "ab" * 32 in plain(html)
    write_manifest(cifar, [10] * 47, settings={**settings, "checksums": {}})
    assert "prepare.tfds.checksums" not in html_of(spec)


def test_records_of_other_archives_are_named_and_records_of_unknown_ones_remarked_on():
    svhn = replace(TASKS[1], source="tfds", display="SVHN", manifest="data/manifests/svhn/0123456789abcdef.json")
    spec = study(svhn)
    settings = {"builder": "svhn_cropped", "checksums": {}, "counts": "official"}
    write_scores(spec, lambda c: 0.5)
    foreign = Remark("archives-foreign", 1, "made from 1 of 2 archives that are not those that TFDS has registered")
    archives = {"https://a.example/train.mat": "ab" * 32, "https://a.example/test.mat": "cd" * 32}
    write_manifest(svhn, [10] * 10, settings=settings, remarks=(foreign,), archives=archives)
    text = plain(html_of(spec))
    assert "registered ones. SVHN: made from archives" in text and f"test.mat, SHA-256 {'cd' * 32}" in text
    assert "Remarks on the images" not in text
    unknown = Remark("archives-unknown", 2, "which archives its records were made from is not known")
    write_manifest(svhn, [10] * 10, settings=settings, remarks=(unknown,))
    text = plain(html_of(spec))
    assert f"Remarks on the images: SVHN: {unknown.text}." in text and "registered ones" not in text


def test_the_audit_of_a_store_is_on_the_page():
    spec = study(SCANS)
    write_manifest(SCANS, [50, 50])
    write_scores(spec, lambda c: 0.9)
    assert "Audit" not in html_of(spec)
    path = Path(SCANS.manifest).with_suffix(".audit.json")
    for audit, state in (
        (StoreAudit("0"), "matches"),
        (StoreAudit("0", remarks=("the pixels show traces of JPEG",)), "matches, 1 remark"),
        (StoreAudit("0", ("its counts are not those of VTAB", "test.npy is missing"), jpeg="none"), "2 mismatches"),
    ):
        write_json(path, to_json(audit))
        html = html_of(spec)
        notes = [plain(note) for note in re.findall(r'<p class="note">(.*?)</p>', html, re.S)]
        assert f"the user's folder of images</td><td>{state}</td>".replace("'", "&#39;") in html
        assert [note.strip() for note in notes if "Not what" in note] == [
            f"Not what it should be. Scans: {sentence}." for sentence in audit.mismatches
        ]
        assert ("Scans: the pixels show traces of JPEG." in plain(html)) == bool(audit.remarks)


def test_what_is_left_out_has_its_reason():
    reason = "cat/7.png is not an image (unusable files in all: 3)"
    spec = replace(study(SCANS), left_out=LeftOut((), ("Fish", "Resisc45"), (), False, {"Fish": reason}))
    write_scores(spec, lambda c: 0.9)
    text = plain(html_of(spec))
    assert f"Not everything is included. Without Fish: {reason}." in text
    assert "Not everything is included. Without Resisc45: the images are missing." in text
