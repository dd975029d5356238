"""Records remember the archives that they were made from: those of another archive are never taken, and what is not
known is said.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("tensorflow_datasets", reason="the extra `tfds` is not installed")

from tfds_folders import spec_for

from miniatures import cifar100
from miniatures.place import Places
from vtabflow import cli
from vtabflow.contracts.typed_json import to_json
from vtabflow.data import plan as data_plan
from vtabflow.errors import UserError
from vtabflow.prepare import step, store
from vtabflow.prepare.tfds import acquire, origin
from vtabflow.prepare.tfds.datasets import datasets
from vtabflow.runtime.files import read_json, write_json

CIFAR = datasets()["cifar100"]
URL, REGISTERED = CIFAR.archives[0].url, CIFAR.archives[0].sha256


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Places with the records of a foreign archive, made by a study that names its digest; that study's spec; and where
    the origin was noted.
    """
    root = tmp_path_factory.mktemp("foreign")
    places = Places.under(root)
    cifar100.make(places)
    spec = spec_for("cifar100", places, root, rows="1k")
    noted, write = [], origin.write_json
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(origin, "write_json", lambda path, value: noted.append(Path(path)) or write(path, value))
        step.run(spec)
    return places, spec, noted


@pytest.fixture
def copied(foreign, tmp_path):
    """A copy of the records, the folder of the records, and the specs of a study with and of one without the digest."""
    places = Places.under(tmp_path)
    shutil.copytree(foreign[0].tfds, places.tfds, dirs_exist_ok=True)
    shutil.copy(foreign[0].checksums, places.checksums)
    named = spec_for("cifar100", places, tmp_path / "named", rows="1k")
    plain = spec_for("cifar100", places, tmp_path / "plain", rows="1k")
    return CIFAR.records(places.tfds), named, replace(plain, settings=replace(plain.settings, checksums={}))


def manifest(spec):
    return store.open_store(spec.folder).manifest


def test_the_note_lies_in_the_records_and_the_manifest_has_it(foreign):
    places, spec, _ = foreign
    digest = places.digests()[URL]
    noted = json.loads((CIFAR.records(places.tfds) / "archives.json").read_text())
    assert noted["archives"] == {URL: digest} and digest != REGISTERED
    found = manifest(spec)
    assert found.archives == {URL: digest}
    (remark,) = found.remarks
    assert remark.kind == "archives-foreign" and remark.examples == ("cifar-100-binary.tar.gz",)
    assert "1 of 1 archives that are not those that TFDS has registered" in remark.text and digest in remark.text


def test_records_of_a_foreign_archive_are_not_taken_by_a_study_without_it(copied):
    folder, named, plain = copied
    with pytest.raises(UserError) as told:
        step.run(plain)
    shown = str(told.value)
    for part in ("cifar100", str(folder), "cifar-100-binary.tar.gz", named.settings.checksums[URL], REGISTERED):
        assert part in shown
    assert "which TFDS has registered" in shown and "remove that folder" in shown and not Path(plain.folder).exists()
    step.run(named)
    assert manifest(named).archives == named.settings.checksums


def test_records_of_the_official_archive_are_not_taken_by_a_study_with_a_foreign_one(copied, capsys):
    folder, named, plain = copied
    origin.note(CIFAR, folder, {URL: REGISTERED})
    with pytest.raises(UserError, match=rf"SHA-256 {REGISTERED}; the study's is .*prepare.tfds.checksums"):
        step.run(named)
    step.run(plain)
    found = manifest(plain)
    assert found.archives == {URL: REGISTERED} and found.remarks is None
    assert "not known" not in capsys.readouterr().out


def lose(folder: Path) -> None:
    (folder / "archives.json").unlink()


def break_note(folder: Path) -> None:
    (folder / "archives.json").write_text("{")


def note_other_records(folder: Path) -> None:
    noted = json.loads((folder / "archives.json").read_text())
    (folder / "archives.json").write_text(json.dumps({**noted, "info": "0" * 64}))


def forget_an_archive(folder: Path) -> None:
    noted = json.loads((folder / "archives.json").read_text())
    (folder / "archives.json").write_text(json.dumps({**noted, "archives": {}}))


@pytest.mark.parametrize("harm", [lose, break_note, note_other_records, forget_an_archive])
def test_what_is_not_known_is_taken_and_said(copied, capsys, harm):
    folder, named, plain = copied
    harm(folder)
    for spec in (plain, named) if harm is lose else ():
        step.run(spec)
        assert "which archives they were made from is not known" in capsys.readouterr().out
        found = manifest(spec)
        assert found.archives is None and [remark.kind for remark in found.remarks] == ["archives-unknown"]
    assert origin.archives_of(CIFAR, folder) is None and origin.fault(CIFAR, folder, {}) is None
    # The note in the folder of downloads is of what may be removed, and says nothing of archives.
    origin.note_generated(plain.places, CIFAR, folder)
    assert origin.archives_of(CIFAR, folder) is None
    shutil.rmtree(plain.folder, ignore_errors=True)
    text, code = data_plan.plan_text([plain])
    assert code == 0 and "has records, origin unknown" in text
    assert "Which archives the records of cifar100 were made from is not known" in text


def test_the_plan_names_records_of_another_archive_and_plans_the_download(copied):
    folder, named, plain = copied
    text, code = data_plan.plan_text([plain])
    assert code == 1 and "has other records" in text and "168.5 MB / 168.5 MB" in text
    assert f"- cifar100: the TFDS records at {folder} were made from another archive" in text
    # With the records removed the archive would be the next to end the job: both are named at once.
    cached = acquire.required(CIFAR, plain.places, {})[0].path
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"short")
    assert f"- cifar100: {cached} is not the required archive" in data_plan.plan_text([plain])[0]
    text, code = data_plan.plan_text([named])
    assert code == 0 and "has records " in text and "0 bytes / 168.5 MB" in text and "not known" not in text


def test_records_that_are_not_taken_are_not_removed(copied, capsys):
    folder, _, plain = copied
    origin.note_generated(plain.places, CIFAR, folder)
    data_plan.clean([plain], really=True)
    assert folder.exists() and "nothing to remove" in capsys.readouterr().out


def test_killed_after_the_records_got_their_name_the_note_is_there(foreign):
    """The note is written before TFDS gives the folder its name: no moment is without it."""
    places, _, noted = foreign
    assert noted[0].name == "archives.json" and noted[0].parent.name.startswith("incomplete.")
    assert noted[0].parent.parent == CIFAR.records(places.tfds).parent


def test_a_file_of_checksums_that_changed_since_the_study_was_planned_does_not_count(tmp_path):
    places = Places.under(tmp_path)
    cifar100.make(places)
    spec = spec_for("cifar100", places, tmp_path)
    planned = replace(spec, settings=replace(spec.settings, checksums={}))
    assert acquire.required(CIFAR, planned.places, {})[0].sha256 == REGISTERED
    with pytest.raises(UserError, match=f"is not the required archive .* instead of {REGISTERED}"):
        step.run(planned)
    assert not CIFAR.records(places.tfds).exists()


def test_prepare_ends_with_the_audit(copied, capsys, monkeypatch):
    _, named, _ = copied
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the command sets it, for its own process
    path = Path(named.receipt).with_name("spec.json")
    write_json(path, to_json(named))
    assert cli.main(["prepare", "--spec", str(path)]) == 0
    made = read_json(Path(named.manifest).with_suffix(".audit.json"))
    assert made["key"] == named.key and made["mismatches"] == [] and made["jpeg"] == "none"
    assert any("archives that are not those that TFDS has registered" in remark for remark in made["remarks"])
    assert "audit: cifar100 matches; traces of lossy files: none" in capsys.readouterr().out


UNIMPORTED = """
import json, sys
from vtabflow.contracts.specs import StoreSpec
from vtabflow.contracts.typed_json import from_json
from vtabflow.errors import UserError
from vtabflow.prepare import step
for path in sys.argv[1:]:
    try:
        step.run(from_json(StoreSpec, json.load(open(path)), 'test'))
    except UserError as error:
        print(error, 'tensorflow' in sys.modules, sep=' -> ')
"""


def test_a_wrong_archive_and_wrong_records_are_named_before_tensorflow_is_imported(copied, tmp_path):
    _, _, plain = copied
    places = Places.under(tmp_path / "other")
    (places.manual / "cifar-100-binary.tar.gz").write_bytes(b"short")
    other = spec_for("cifar100", places, tmp_path / "other")
    paths = []
    for name, spec in (("records", plain), ("archive", other)):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(to_json(spec)))
    run = subprocess.run(
        [sys.executable, "-c", UNIMPORTED, *map(str, paths)], env={**os.environ}, capture_output=True, text=True
    )
    first, second = (line for line in run.stdout.splitlines() if " -> " in line)
    assert "were made from another archive" in first and "5 bytes" in second and "168,513,733" in second
    assert first.endswith(" -> False") and second.endswith(" -> False"), run.stderr


def test_the_plan_names_an_archive_of_the_wrong_size_and_one_that_was_verified_as_another(tmp_path):
    places = Places.under(tmp_path)
    cifar100.make(places)
    spec = spec_for("cifar100", places, tmp_path)
    assert data_plan.plan_text([spec])[1] == 0
    plain = replace(spec, settings=replace(spec.settings, checksums={}))
    cached = acquire.required(CIFAR, plain.places, {})[0].path
    text, code = data_plan.plan_text([plain])
    assert code == 1 and f"{cached} is not the required archive" in text and "168,513,733" in text
    placed = places.manual / "cifar-100-binary.tar.gz"
    cached.rename(placed)
    text, code = data_plan.plan_text([plain])
    assert code == 1 and f"{placed} is not the required archive" in text
    # As large as the study's, but verified before as another: told without hashing it again.
    acquire.fetch(CIFAR, spec.places, spec.settings.checksums)
    size = cached.stat().st_size
    places.checksums.write_text(json.dumps({URL: {"sha256": "ab" * 32, "size": size}}))
    third = replace(spec, settings=replace(spec.settings, checksums={URL: "ab" * 32}))
    found = hashlib.sha256(cached.read_bytes()).hexdigest()
    text, code = data_plan.plan_text([third])
    assert code == 1 and f"SHA-256 {found}, and the study's has {'ab' * 32}" in text
