"""Files that crash, hang or fill the memory cost their reader's life, and nothing else."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import zlib

import numpy as np
import psutil
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from delineate.projects.privacy import Policy
from delineate.studies import reader as reader_module
from delineate.studies.archive import Refused
from delineate.studies.reader import Reader, Readers, Wanted
from tests.delineate.studies.files import image, written

WANTED = Wanted(key=bytes(32), policy=Policy())


@pytest.fixture
def reader():
    """A reader of the test's own."""
    own = Reader()
    yield own
    own.stop()


def read(reader: Reader, data: bytes, **more):
    """A file's frames and end."""
    reading = reader.begin(data, WANTED, alive=more.get("alive", lambda: None)).described()
    return [frame.pixels for frame in reading.frames()], reading.end


def code_of(reader: Reader, data: bytes) -> str:
    """The code that a file is refused with."""
    with pytest.raises(Refused) as refusal:
        read(reader, data)
    return refusal.value.code


def test_a_file_comes_back_as_it_is_here(reader):
    file = image(sop="1.2.3.4", PatientName="Doe^Jane")
    (pixels,), end = read(reader, written(file))
    assert np.array_equal(pixels, file.pixel_array)
    assert end.modality == "CT"
    assert "Doe" not in str(end.header)
    assert "00100010" not in end.header


def test_one_process_reads_many_files(reader):
    read(reader, written(image()))
    process = reader._process
    assert code_of(reader, b"no image at all") == "not_dicom"
    read(reader, written(image()))
    assert reader._process is process


def test_a_reading_that_is_given_up_does_not_disturb_the_next(reader):
    frames = np.arange(4 * 80, dtype=np.int16).reshape(4, 8, 10)
    reading = reader.begin(written(image(pixels=frames)), WANTED, alive=lambda: None).described()
    next(reading.frames())
    (pixels,), _ = read(reader, written(image(seed=7)))
    assert np.array_equal(pixels, image(seed=7).pixel_array)


def test_the_reading_process_knows_no_secret_and_may_write_nothing(reader):
    read(reader, written(image()))
    process = psutil.Process(reader._process.pid)
    assert set(process.environ()) == {"PYTHONPATH", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
    assert process.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
    assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)


def test_it_ends_when_the_other_end_goes_away(reader):
    read(reader, written(image()))
    reader._process.stdin.close()
    assert reader._process.wait(timeout=30) == 0


def test_a_file_that_ends_its_reader_is_refused_and_the_next_is_read(reader):
    read(reader, written(image()))
    reader._process.kill()
    reader._process.wait()
    read(reader, written(image()))  # one that died between files is started anew

    more_than_a_pipe_holds = np.zeros((9, 400, 400), dtype=np.int16)
    reading = reader.begin(
        written(image(pixels=more_than_a_pipe_holds)), WANTED, alive=lambda: None
    ).described()
    reader._process.kill()
    with pytest.raises(Refused) as refusal:
        list(reading.frames())
    assert refusal.value.code == "reader_died"
    read(reader, written(image()))


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("import sys; sys.stdin.buffer.read(9); sys.exit(1)", "reader_died"),
        ("import os, sys; sys.stdin.buffer.read(9); os.abort()", "reader_died"),
        ("import sys; sys.stdin.buffer.read(9); sys.stdout.write('x' * 99)", "reader_died"),
        ("import sys, time; sys.stdin.buffer.read(9); time.sleep(60)", "too_slow"),
        ("import time; time.sleep(60)", "too_slow"),  # takes nothing: the pipe is full
    ],
)
def test_whatever_a_reader_does_its_file_is_refused_by_name(reader, monkeypatch, program, code):
    read(reader, written(image()))
    reader.stop()
    with monkeypatch.context() as patch:
        patch.setattr(reader_module, "STARTS_WITHIN_S", 1.0)
        patch.setattr(reader_module, "ANSWERS_WITHIN_S", 0.5)
        patch.setattr(reader_module, "_start", lambda: _started(program))
        large = image(pixels=np.zeros((400, 400), dtype=np.int16))
        assert code_of(reader, written(large)) == code
    assert reader._process is None
    read(reader, written(image()))


def test_the_job_is_alive_while_its_file_takes_time(reader, monkeypatch):
    signs = []
    monkeypatch.setattr(reader_module, "_TOLD_EVERY_S", 0.01)
    read(reader, written(image()), alive=lambda: signs.append(1))  # the process starts meanwhile
    assert signs


def test_a_taken_over_job_stops_its_reader(reader, monkeypatch):
    class Over(Exception):
        pass

    def raise_over():
        raise Over

    monkeypatch.setattr(reader_module, "_TOLD_EVERY_S", 0.01)
    with pytest.raises(Over):
        read(reader, written(image()), alive=raise_over)
    assert reader._process is None


def test_memory_is_bounded_whatever_a_file_unpacks_to(reader, monkeypatch):
    """Within the ratio that is allowed, and still more than a file of its size may take."""
    read(reader, written(image()))
    taken = int(psutil.Process(reader._process.pid).memory_info().data)
    monkeypatch.setattr(reader_module, "MEMORY_BYTES", taken + 64 * 1024**2)
    monkeypatch.setattr(reader_module, "MEMORY_PER_BYTE", 0)
    file = image()
    file.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    plain = written(file)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    head, dataset = plain[: -len(_body(plain))], zlib.decompress(_body(plain), -zlib.MAX_WBITS)
    noise, zeros = os.urandom(1024**2), bytes(90 * 1024**2)
    body = packer.compress(dataset)
    for element, value in ((0x10, noise), (0x12, zeros)):
        tag = (0x7FE1).to_bytes(2, "little") + element.to_bytes(2, "little")
        body += packer.compress(tag + b"OB\0\0" + len(value).to_bytes(4, "little") + value)
    assert code_of(reader, head + body + packer.flush()) == "too_much_memory"
    read(reader, written(image()))


def test_answers_out_of_their_order_are_not_believed(reader, monkeypatch):
    """A reader that hostile input has taken over says what it likes."""
    again = (
        "import sys; from delineate.studies import reading as r; sys.stdin.buffer.read(9); "
        "d = r.Described(subject='S', is_named=True, study_uid='1', series_uid='1', sop_uid='1', "
        "place=None); [sys.stdout.buffer.writelines(r.packed(d)) for _ in range(2)]"
    )
    monkeypatch.setattr(reader_module, "_start", lambda: _started(again))
    reading = reader.begin(written(image()), WANTED, alive=lambda: None).described()
    assert reading.described.subject == "S"
    with pytest.raises(Refused) as refusal:
        list(reading.frames())
    assert refusal.value.code == "reader_died"


def _body(file: bytes) -> bytes:
    """What follows the file meta information."""
    return file[144 + int.from_bytes(file[140:144], "little") :]


def _started(program: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    return process


def test_the_next_file_is_read_while_the_answers_to_one_wait():
    values = np.random.default_rng(1).integers(-9, 9, (3, 300, 400), dtype=np.int16)
    files = [written(image(pixels=pixels)) for pixels in values]  # more than a pipe holds, each
    both = Readers()
    try:
        begun = [both.next().begin(file, WANTED, alive=lambda: None) for file in files[:2]]
        for number, pixels in enumerate(values):
            (frame,) = begun[number].described().frames()
            np.testing.assert_array_equal(frame.pixels, pixels)
            if len(begun) < len(files):
                begun.append(both.next().begin(files[2], WANTED, alive=lambda: None))
        assert len({id(reader._process) for reader in both.both} - {id(None)}) == 2
    finally:
        both.stop()


def test_one_whose_answers_were_taken_does_not_end_the_next(reader):
    """A generator that is thrown away is told so, which may be when the next file is begun."""
    first = reader.begin(written(image()), WANTED, alive=lambda: None).described()
    assert len(list(itertools.islice(first.frames(), 1))) == 1
    answers = first._answers
    next(answers)
    second = reader.begin(written(image(seed=7)), WANTED, alive=lambda: None)
    process = reader._process
    answers.close()
    (frame,) = second.described().frames()
    assert np.array_equal(frame.pixels, image(seed=7).pixel_array)
    assert reader._process is process
