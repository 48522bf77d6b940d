from __future__ import annotations

import resource
import signal
import subprocess
import sys

import pytest
import torch

from mlworker.training.state import NotKept, StateError, load_state, save_state, write_whole

IDENTITY = {"data": "abc", "settings": {"seed": 1}}


def test_a_state_comes_back_as_it_was(tmp_path):
    weights = {"a": torch.arange(3.0)}
    state = {"weights": weights, "step": 7, "best": None}

    save_state(tmp_path / "last.state", state, identity=IDENTITY)
    loaded = load_state(tmp_path / "last.state", identity=IDENTITY)

    assert torch.equal(loaded["weights"]["a"], weights["a"])
    assert (loaded["step"], loaded["best"]) == (7, None)


def test_the_state_of_another_run_is_refused_with_what_differs(tmp_path):
    save_state(tmp_path / "last.state", {}, identity=IDENTITY)

    with pytest.raises(StateError, match=r"data: 'abc' there, 'xyz' here"):
        load_state(tmp_path / "last.state", identity=IDENTITY | {"data": "xyz"})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"text"])
def test_what_is_no_state_is_refused(tmp_path, content):
    path = tmp_path / "last.state"
    path.write_bytes(content)

    with pytest.raises(StateError, match="no state of a run"):
        load_state(path, identity=IDENTITY)


def test_a_state_cut_off_is_refused(tmp_path):
    path = tmp_path / "last.state"
    save_state(path, {"weights": torch.zeros(1000)}, identity=IDENTITY)
    path.write_bytes(path.read_bytes()[:-500])

    with pytest.raises(StateError, match="no state of a run"):
        load_state(path, identity=IDENTITY)


def test_a_writer_that_fails_leaves_the_last_whole_file(tmp_path):
    path = tmp_path / "file"
    write_whole(path, lambda file: file.write(b"whole"))

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(NotKept, match="No space left on device"):
        write_whole(path, fail)

    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_state_for_which_there_is_no_room_leaves_the_last_one(tmp_path):
    path = tmp_path / "last.state"
    save_state(path, {"step": 1}, identity=IDENTITY)
    code = (
        "import sys, torch; from pathlib import Path\n"
        "from mlworker.training.state import NotKept, save_state\n"
        "try: save_state(Path(sys.argv[1]), {'w': torch.zeros(1_000_000)}, identity={})\n"
        "except NotKept as error: print(error)"
    )

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    said = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "could not be written" in said.stdout
    assert load_state(path, identity=IDENTITY) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]
