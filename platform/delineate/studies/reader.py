"""The other end of reading.py: files given to a process of their own, with patience but not much.

The process is started with the first file and lives on; one that dies, hangs or asks for too much
costs the file that did it to it, and the next one gets a new process.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydantic import ValidationError

from delineate.projects.privacy import Policy
from delineate.studies.archive import Refused
from delineate.studies.reading import (
    ANSWERS,
    Described,
    End,
    FrameHead,
    Head,
    Message,
    ReferenceHead,
    Refusal,
    Request,
    Whose,
    packed,
)
from mlworker.contract.artifacts import Array

NOTHING_SAID: Final = Whose()
ANSWERS_WITHIN_S: Final = 10.0  # each: the description, every frame
BYTES_PER_S: Final = 20 * 1024**2  # of a large file, in addition
PROCESSOR_S: Final = 600  # for a reader whose other end has died; patience ends before
# Of a small file: numpy, the decoder and all. A larger one is held twice, its frames beside it.
MEMORY_BYTES: Final = 1024**3
MEMORY_PER_BYTE: Final = 4
STARTS_WITHIN_S: Final = 60.0  # numpy and pydicom load slowly on a busy machine
_TOLD_EVERY_S: Final = 0.5
_AT_ONCE: Final = 1024**2
_MOST_TEXT: Final = 256 * 1024**2  # of a message: an enhanced object's header has 10,000 frames


@dataclass(frozen=True)
class Wanted:
    """How a project wants its files: its key, and what it keeps of who a patient is."""

    key: bytes
    policy: Policy
    with_originals: bool = False  # they are to be sealed


@dataclass(frozen=True)
class ReadFrame:
    """A frame as it arrived; ``pixels`` are (rows, columns) or (rows, columns, 3) uint8."""

    head: FrameHead
    pixels: Array


@dataclass(frozen=True)
class ReadReference:
    """An object that is kept beside the images, with the bytes of its pixels as they are kept."""

    head: ReferenceHead
    pixels: bytes


_Answer = Described | ReadFrame | End | ReadReference


class Reading:
    """A file that is being read: its description, then its frames and its end, or a reference."""

    def __init__(self, described: Described, answers: Iterator[_Answer | None]) -> None:
        self.described = described
        self._answers = answers
        self._end: End | None = None

    def frames(self) -> Iterator[ReadFrame]:
        """Each once; raises Refused."""
        for answer in self._answers:
            if isinstance(answer, End):
                self._end = answer
            else:
                assert isinstance(answer, ReadFrame), "a reference has none"
                yield answer

    def reference(self) -> ReadReference:
        """What a file is that has no frames to delineate; once, raises Refused."""
        answer = next(self._answers)
        assert isinstance(answer, ReadReference), "it was described as one"
        return answer

    @property
    def end(self) -> End:
        """What is known after the last frame."""
        assert self._end is not None, "not all frames were taken"
        return self._end


class Begun:
    """A file that was given to a reader, which is at work on it."""

    def __init__(self, answers: Iterator[_Answer | None]) -> None:
        self._answers = answers

    def described(self) -> Reading:
        """Waits for the description; raises Refused."""
        described = next(self._answers)
        assert isinstance(described, Described), "reading.py begins with it"
        return Reading(described, self._answers)


class Reader:
    """Reads one file at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_busy = False

    def begin(
        self,
        data: bytes,
        wanted: Wanted,
        *,
        whose: Whose = NOTHING_SAID,
        alive: Callable[[], None],
    ) -> Begun:
        """Give it a file; ``alive`` is called while it takes time. Raises Refused."""
        has_died = self._process is not None and self._process.poll() is not None
        if has_died or self._is_busy:  # with a file that was not read to its end
            self.stop()
        self._is_busy = True
        answers = self._exchange(data, _request(data, wanted, whose), alive=alive)
        next(answers)  # all of it is sent
        return Begun(answers)

    def stop(self) -> None:
        """End the process; the next file starts another."""
        process, self._process, self._is_busy = self._process, None, False
        if process is not None:
            process.kill()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # what was not written yet
                    assert stream is not None
                    stream.close()
            process.wait()

    def _exchange(
        self, data: bytes, request: Request, *, alive: Callable[[], None]
    ) -> Iterator[_Answer | None]:
        """None when the file is sent, then the answers; raises Refused."""
        described: Described | None = None
        last: End | ReadReference
        wire = self._wire(alive, patience_s=ANSWERS_WITHIN_S + len(data) / BYTES_PER_S)
        process = self._process
        try:
            wire.send(request, data)
            del data  # it is the other end's by now
            yield None
            while True:
                answer, payload = wire.receive()
                if isinstance(answer, Refusal):
                    self._is_busy = False
                    raise Refused(answer.code, answer.message)
                _check_order(answer, after=described)
                if isinstance(answer, Described):
                    described = answer
                    yield answer
                elif isinstance(answer, ReferenceHead):
                    last = ReadReference(answer, bytes(payload))
                    break
                elif isinstance(answer, End):
                    last = answer
                    break
                else:
                    yield _frame(answer, payload)
        except _TooSlow as error:
            self.stop()
            raise Refused(
                "too_slow", "Reading the file takes too long; it is damaged or made to."
            ) from error
        except (OSError, EOFError, ValidationError, ValueError) as error:
            self.stop()
            raise Refused(
                "reader_died", "Reading the file ended its reader; it is damaged or made to."
            ) from error
        except BaseException:
            # The attempt was taken over, or nobody wants the rest; the process may be another by
            # now, at work on another file.
            if self._is_busy and self._process is process:
                self.stop()
            raise
        self._is_busy = False
        # Out of reach of the above: whoever has this asks for nothing more.
        yield last

    def _wire(self, alive: Callable[[], None], *, patience_s: float) -> _Wire:
        if self._process is None:
            self._process = _start()
            patience_s += STARTS_WITHIN_S
        return _Wire(self._process, alive, patience_s=patience_s)


class Readers:
    """Two in turn: while one's answers are stored, the other reads the next file."""

    def __init__(self) -> None:
        self.both = (Reader(), Reader())
        self._turns = itertools.cycle(self.both)

    def next(self) -> Reader:
        """The one whose turn it is: what it was given before its last turn is given up."""
        return next(self._turns)

    def stop(self) -> None:
        """End both processes."""
        for reader in self.both:
            reader.stop()


@functools.cache
def readers() -> Readers:
    """This process's own: the reading processes that they have outlive an upload."""
    own = Readers()
    atexit.register(own.stop)
    return own


class _TooSlow(Exception):
    """The answer did not come in time."""


class _Wire:
    """Both directions of the pipe, with patience for each answer."""

    def __init__(
        self, process: subprocess.Popen[bytes], alive: Callable[[], None], *, patience_s: float
    ) -> None:
        assert process.stdin is not None, "started with pipes"
        assert process.stdout is not None, "started with pipes"
        self._in, self._out = process.stdin, process.stdout
        self._alive = alive
        self._patience_s = patience_s

    def send(self, request: Request, data: bytes) -> None:
        self._until = time.monotonic() + self._patience_s
        # The other end takes the whole file before it answers: nothing comes back meanwhile.
        for part in packed(request, data):
            self._write(memoryview(part))

    def _write(self, data: memoryview) -> None:
        descriptor = self._in.fileno()
        while data:
            self._wait([], [descriptor])
            data = data[os.write(descriptor, data[:_AT_ONCE]) :]

    def _wait(self, reading: list[int], writing: list[int]) -> None:
        """Until one of them is ready; raises _TooSlow."""
        while True:
            wait_s = min(_TOLD_EVERY_S, self._until - time.monotonic())
            if wait_s <= 0:
                raise _TooSlow
            if any(select.select(reading, writing, [], wait_s)):
                return
            self._alive()

    def receive(self) -> tuple[Message, bytearray]:
        self._until = time.monotonic() + self._patience_s
        head = Head.unpack(bytes(self._exactly(Head.SIZE)))
        if head.text > _MOST_TEXT:
            raise ValueError("a message longer than any")
        answer = ANSWERS.validate_json(bytes(self._exactly(head.text)))
        if head.payload != _size(answer):
            raise ValueError("pixels of another size than it says")
        return answer, self._exactly(head.payload)

    def _exactly(self, size: int) -> bytearray:
        data = bytearray()
        descriptor = self._out.fileno()
        while len(data) < size:
            self._wait([descriptor], [])
            piece = os.read(descriptor, min(_AT_ONCE, size - len(data)))
            if not piece:
                raise EOFError
            data += piece
        return data


def _request(data: bytes, wanted: Wanted, whose: Whose) -> Request:
    return Request(
        key=wanted.key.hex(),
        policy=wanted.policy,
        whose=whose,
        with_original=wanted.with_originals,
        memory_bytes=max(MEMORY_BYTES, MEMORY_BYTES // 2 + MEMORY_PER_BYTE * len(data)),
        processor_s=PROCESSOR_S,
    )


def _start() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "delineate.studies.reading"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        # Told of no database and no secret; one thread, as its limits count each one's memory.
        env={
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        },
    )
    assert process.stdin is not None, "started with a pipe"
    os.set_blocking(process.stdin.fileno(), False)
    return process


def _check_order(answer: Message, *, after: Described | None) -> None:
    """What is said first is a description, once, and all after it fits it; raises ValueError."""
    if isinstance(answer, Described) != (after is None):
        raise ValueError("a description that lacks, or comes twice")
    if after is not None and isinstance(answer, ReferenceHead) != after.is_reference:
        raise ValueError("a reference where an image was described, or an image where one was")


def _size(answer: Message) -> int:
    """Bytes that follow it."""
    match answer:
        case FrameHead():
            values = np.prod(answer.placed.shape, dtype=np.int64)
            return int(np.dtype(answer.dtype).itemsize * values)
        case ReferenceHead():
            return answer.size
        case _:
            return 0


def _frame(answer: Message, payload: bytearray) -> ReadFrame:
    assert isinstance(answer, FrameHead)
    array = np.frombuffer(payload, dtype=np.dtype(answer.dtype)).reshape(answer.placed.shape)
    return ReadFrame(answer, array)
