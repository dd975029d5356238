"""Results are written whole or not at all."""

import os
import socket
import subprocess
import sys

import pytest

from vtabflow.errors import RunError
from vtabflow.runtime.files import canonical, digest, read_json, seed_of, write_json, writing


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"n": 1})
    with pytest.raises(ZeroDivisionError), writing(path) as stream:
        stream.write(b"half")
        raise ZeroDivisionError
    assert read_json(path) == {"n": 1} and os.listdir(tmp_path) == ["a.json"]
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, {"n": float("nan")})
    assert read_json(path) == {"n": 1} and os.listdir(tmp_path) == ["a.json"]


def test_no_space_is_one_sentence(tmp_path):
    """A real full disk: /dev/full has no room, a size limit of the process makes the file too large."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from vtabflow.runtime.files import write_with\n"
        "from vtabflow.errors import RunError\n"
        "try: write_with(sys.argv[1], lambda f: f.write(bytes(100000)))\n"
        "except RunError as e: print(e)"
    )
    path = tmp_path / "big.npy"
    out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    assert out.startswith(f"cannot write {path}: ") and "free the disk" in out
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        write_json(tmp_path / "file" / "a.json", 1)


def test_results_are_as_open_as_the_umask_says(tmp_path):
    before = os.umask(0o022)
    try:
        write_json(tmp_path / "a.json", 1)
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o644


def test_digests_are_of_the_value():
    assert digest({"b": 1, "a": [1.0, "x"]}) == digest({"a": [1.0, "x"], "b": 1})
    assert digest({"a": 1}) != digest({"a": 2}) and len(digest(0)) == 16
    assert canonical({"b": "é", "a": None}) == '{"a":null,"b":"\\u00e9"}'
    seeds = {seed_of("order", 0, i) for i in range(1000)}
    assert len(seeds) == 1000 and all(0 <= seed < 2**63 for seed in seeds)


WRITER = """
import sys, time
from vtabflow.runtime.files import writing
with writing(sys.argv[1]) as stream:
    stream.write(bytes(10))
    stream.flush()
    print("in", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_writer_left_is_removed(tmp_path):
    """By the next write of the same file; the temporary file of a writer that is alive stays."""
    path = tmp_path / "big.npy"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "in\n"
    writers[0].kill()
    writers[0].wait()
    assert len(os.listdir(tmp_path)) == 2
    write_json(path, 1)
    assert len(os.listdir(tmp_path)) == 2 and path.exists(), "the file, and the part of the writer that is alive"
    writers[1].kill()
    writers[1].wait()
    write_json(path, 2)
    assert os.listdir(tmp_path) == ["big.npy"]


def test_temporary_files_of_other_hosts_stay(tmp_path):
    """A process id says nothing about another host that shares the folder: its writer may be alive."""
    ours, theirs = (tmp_path / f".a.json.{host}-4194305.x" for host in (socket.gethostname(), "elsewhere"))
    ours.touch()
    theirs.touch()
    write_json(tmp_path / "a.json", 1)
    assert theirs.exists() and not ours.exists()


def test_a_reader_of_the_old_file_keeps_it(tmp_path):
    """The new content is renamed over the path and not copied into the old file: who has it open reads on."""
    path = tmp_path / "a.json"
    write_json(path, {"n": 1})
    before = path.stat().st_ino
    with open(path) as old:
        write_json(path, {"n": 2})
        assert "1" in old.read() and path.stat().st_ino != before
    assert read_json(path) == {"n": 2}
