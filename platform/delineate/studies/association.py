"""The acceptor's side of one DICOM association, on its socket (PS3.8 9, PS3.7 6.3). Values only.

How an association is asked for and answered is read and written by pynetdicom. What follows is read
here: pynetdicom's own reactor keeps a whole message in memory, however large it is, and looks for
news once a millisecond from two threads, which is most of what receiving an image would cost
(docs/decisions/2026-11-26-receiving-dicom.md).

One thread owns an association and waits in ``receive``. Everything a peer says is bounded: PDUs by
the length that was announced to it, messages by ``max_dataset_bytes``, silence by time-outs. Fields
of PDUs are big endian, command sets implicit VR little endian (PS3.7 6.3.1).
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import tempfile
import time
from collections import deque
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum
from typing import BinaryIO, Final, cast

from pydicom.uid import UID
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, A_RELEASE_RP
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext

# What peers are told that a PDU of ours may have: as much as dcmtk ever sends.
MAX_PDU_BYTES: Final = 128 * 1024
# 128 presentation contexts of all the transfer syntaxes that there are.
MAX_REQUEST_BYTES: Final = 1024**2
MAX_COMMAND_BYTES: Final = 64 * 1024
# A message that is larger waits in a file without a name, not in memory.
IN_MEMORY_BYTES: Final = 16 * 1024**2
# From the first byte of a PDU to its last, and of an answer until the peer has taken it.
PDU_TAKES_AT_MOST_S: Final = 30.0
CHUNK_BYTES: Final = 1024**2

_ASSOCIATE_RQ, _DATA, _RELEASE_RQ, _ABORT = 0x01, 0x04, 0x05, 0x07
_PDU_HEADER: Final = struct.Struct(">BxL")
_PDV_HEADER: Final = struct.Struct(">LBB")
_IS_COMMAND, _IS_LAST = 0x01, 0x02
_NO_DATASET: Final = 0x0101
_ABSTRACT_SYNTAX_NOT_SUPPORTED, _TRANSFER_SYNTAXES_NOT_SUPPORTED = 3, 4


class End(StrEnum):
    """How an association ended, as the words after "It was"."""

    RELEASED = "released"
    ABORTED = "aborted by its sender"
    LOST = "lost"
    SILENT = "silent for too long"
    MALFORMED = "not of the protocol"


class Ended(Exception):
    """Nothing more comes."""

    def __init__(self, how: End) -> None:
        super().__init__(how)
        self.how = how


class Rejection(Enum):
    """Why an association is not accepted: result, source, reason (PS3.8 9.3.4)."""

    CALLING_AE_TITLE_NOT_RECOGNISED = (1, 1, 3)
    CALLED_AE_TITLE_NOT_RECOGNISED = (1, 1, 7)
    LOCAL_LIMIT_EXCEEDED = (2, 3, 2)  # for the moment


class Status(IntEnum):
    """Of an answer (PS3.7 C, PS3.4 B.2.3)."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORISED = 0x0124
    OUT_OF_RESOURCES = 0xA700
    CANNOT_UNDERSTAND = 0xC000


class Command(IntEnum):
    """The requests that are answered (PS3.7 E.1)."""

    STORE = 0x0001
    ECHO = 0x0030


@dataclass(frozen=True)
class Context:
    """A presentation context: what is sent, and how it is written."""

    sop_class: UID
    transfer_syntax: UID


@dataclass(frozen=True)
class Request:
    """What a peer asks for."""

    calling: str
    called: str
    proposed: tuple[PresentationContext, ...]
    primitive: A_ASSOCIATE


@dataclass(frozen=True)
class Message:
    """A request within the association; whoever takes it closes it."""

    context_id: int
    context: Context
    command: Command
    id: int
    sop_class: str
    sop_instance: str
    dataset: BinaryIO | None
    is_whole: bool  # else it was larger than a message may be, and is not kept

    def close(self) -> None:
        """Let go of the dataset."""
        if self.dataset is not None:
            self.dataset.close()

    def chunks(self) -> Iterator[bytes]:
        """The dataset as it was sent."""
        assert self.dataset is not None, "a message without a dataset"
        self.dataset.seek(0)
        while chunk := self.dataset.read(CHUNK_BYTES):
            yield chunk


@dataclass(frozen=True)
class _Fragment:
    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview


class Association:
    """One peer's connection, from its request to its end. Every method may raise Ended."""

    def __init__(self, connection: socket.socket, *, max_dataset_bytes: int) -> None:
        self._connection = connection
        self._max_dataset_bytes = max_dataset_bytes
        self._contexts: dict[int, Context] = {}
        self._fragments: deque[_Fragment] = deque()
        # Answers are small and waited for: held back for more to send, each would take 40 ms.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def requested(self) -> Request:
        """What the peer asks for."""
        kind, body = self._pdu(within_s=PDU_TAKES_AT_MOST_S)
        if kind != _ASSOCIATE_RQ:
            raise self._malformed()
        try:
            pdu = A_ASSOCIATE_RQ()
            pdu.decode(_PDU_HEADER.pack(kind, len(body)) + bytes(body))
            primitive = pdu.to_primitive()
            return Request(
                calling=primitive.calling_ae_title.strip(),
                called=primitive.called_ae_title.strip(),
                proposed=tuple(primitive.presentation_context_definition_list),
                primitive=primitive,
            )
        except Exception as error:  # pynetdicom raises what its parts raise
            raise self._malformed() from error

    def reject(self, reason: Rejection) -> None:
        """Do not accept what was asked for."""
        pdu = A_ASSOCIATE_RJ()
        pdu.result, pdu.source, pdu.reason_diagnostic = reason.value
        self._send(pdu.encode())
        self._wait_for_close()

    def accept(self, request: Request, *, taken: Mapping[UID, Container[UID]]) -> None:
        """Accept what is in ``taken``: transfer syntaxes by SOP class.

        Of several the sender's first, which is what it has: none is made to write its images anew.
        """
        answers: list[PresentationContext] = []
        for proposed in request.proposed:
            context_id, sop_class = proposed.context_id, proposed.abstract_syntax
            if context_id is None or sop_class is None or not proposed.transfer_syntax:
                raise self._malformed()
            known = [s for s in proposed.transfer_syntax if s in taken.get(sop_class, ())]
            answer = PresentationContext()
            answer.context_id = context_id
            answer.abstract_syntax = sop_class
            answer.transfer_syntax = [(known or proposed.transfer_syntax)[0]]
            if known:
                answer.result = 0
                self._contexts[context_id] = Context(sop_class, known[0])
            elif sop_class in taken:
                answer.result = _TRANSFER_SYNTAXES_NOT_SUPPORTED
            else:
                answer.result = _ABSTRACT_SYNTAX_NOT_SUPPORTED
            answers.append(answer)
        self._send(_acceptance(request.primitive, answers))

    def receive(self, *, within_s: float) -> Message | None:
        """The next message, None when none has begun in time."""
        if not self._fragments and not self._comes(within_s):
            return None
        first = self._fragment()
        context = self._contexts.get(first.context_id)
        if context is None or not first.is_command:
            raise self._malformed()
        fields = _command_fields(self._command(first))
        try:
            command = Command(_number(fields, 0x0100))
        except ValueError as error:
            raise self._malformed() from error
        dataset, is_whole = None, True
        if _number(fields, 0x0800) != _NO_DATASET:
            dataset, is_whole = self._dataset(first.context_id)
        return Message(
            context_id=first.context_id,
            context=context,
            command=command,
            id=_number(fields, 0x0110),
            sop_class=_text(fields, 0x0002),
            sop_instance=_text(fields, 0x1000),
            dataset=dataset,
            is_whole=is_whole,
        )

    def answer(self, message: Message, status: Status, *, comment: str = "") -> None:
        """Answer a message; ``comment`` says why not, in 64 characters."""
        fields = [
            (0x0002, _padded(message.sop_class, b"\0")),
            (0x0100, struct.pack("<H", message.command | 0x8000)),
            (0x0120, struct.pack("<H", message.id)),
            (0x0800, struct.pack("<H", _NO_DATASET)),
            (0x0900, struct.pack("<H", status)),
        ]
        if comment:
            fields.append((0x0902, _padded(comment[:64], b" ")))
        if message.command == Command.STORE:
            fields.append((0x1000, _padded(message.sop_instance, b"\0")))
        rest = b"".join(_element(element, value) for element, value in fields)
        command = _element(0x0000, struct.pack("<L", len(rest))) + rest
        pdv = _PDV_HEADER.pack(len(command) + 2, message.context_id, _IS_COMMAND | _IS_LAST)
        self._send(_PDU_HEADER.pack(_DATA, len(pdv) + len(command)) + pdv + command)

    def confirm_release(self) -> None:
        """Answer a release, when all is in order that came before it."""
        self._send(A_RELEASE_RP().encode())
        self._wait_for_close()

    def abort(self) -> None:
        """End it from our side; a peer that is gone already does not matter."""
        with contextlib.suppress(Ended):
            self._send(_abort_pdu(reason=0))

    def interrupt(self) -> None:
        """From another thread: let what has come be answered, and nothing more be received."""
        with contextlib.suppress(OSError):  # it is closed already
            self._connection.shutdown(socket.SHUT_RD)

    def _command(self, first: _Fragment) -> bytes:
        command, fragment = bytearray(first.data), first
        while not fragment.is_last:
            fragment = self._fragment()
            if fragment.context_id != first.context_id or not fragment.is_command:
                raise self._malformed()
            command += fragment.data
            if len(command) > MAX_COMMAND_BYTES:
                raise self._malformed()
        return bytes(command)

    def _dataset(self, context_id: int) -> tuple[BinaryIO, bool]:
        """The dataset that follows a command, and whether it was kept whole."""
        kept = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115 (see Message)
        size = 0
        try:
            while True:
                fragment = self._fragment()
                if fragment.context_id != context_id or fragment.is_command:
                    raise self._malformed()
                size += len(fragment.data)
                if size <= self._max_dataset_bytes:
                    kept.write(fragment.data)
                elif kept.tell():
                    kept.seek(0)
                    kept.truncate()
                if fragment.is_last:
                    return cast(BinaryIO, kept), size <= self._max_dataset_bytes
        except BaseException:
            kept.close()
            raise

    def _fragment(self) -> _Fragment:
        while not self._fragments:
            kind, body = self._pdu(within_s=PDU_TAKES_AT_MOST_S)
            if kind == _RELEASE_RQ:
                raise Ended(End.RELEASED)
            if kind == _ABORT:
                raise Ended(End.ABORTED)
            if kind != _DATA:
                raise self._malformed()
            self._split(body)
        return self._fragments.popleft()

    def _split(self, body: bytearray) -> None:
        view, at = memoryview(body), 0
        while at < len(body):
            if len(body) - at < _PDV_HEADER.size:
                raise self._malformed()
            length, context_id, header = _PDV_HEADER.unpack_from(body, at)
            begin, at = at + _PDV_HEADER.size, at + 4 + length
            if length < 2 or at > len(body):
                raise self._malformed()
            self._fragments.append(
                _Fragment(
                    context_id, bool(header & _IS_COMMAND), bool(header & _IS_LAST), view[begin:at]
                )
            )

    def _pdu(self, *, within_s: float) -> tuple[int, bytearray]:
        deadline = time.monotonic() + within_s
        kind, length = _PDU_HEADER.unpack(self._read(_PDU_HEADER.size, deadline))
        if length > (MAX_REQUEST_BYTES if kind == _ASSOCIATE_RQ else MAX_PDU_BYTES):
            raise self._malformed()
        return kind, self._read(length, deadline)

    def _read(self, size: int, deadline: float) -> bytearray:
        read = bytearray(size)
        view, at = memoryview(read), 0
        while at < size:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise Ended(End.SILENT)
            self._connection.settimeout(left_s)
            try:
                count = self._connection.recv_into(view[at:])
            except TimeoutError as error:
                raise Ended(End.SILENT) from error
            except OSError as error:
                raise Ended(End.LOST) from error
            if count == 0:
                raise Ended(End.LOST)
            at += count
        return read

    def _comes(self, within_s: float) -> bool:
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        return bool(poll.poll(within_s * 1000))

    def _send(self, data: bytes) -> None:
        self._connection.settimeout(PDU_TAKES_AT_MOST_S)
        try:
            self._connection.sendall(data)
        except OSError as error:
            raise Ended(End.LOST) from error

    def _wait_for_close(self) -> None:
        """The peer closes (PS3.8 9.2, Sta13): closing first, our last words might not arrive."""
        with contextlib.suppress(Ended):
            while True:
                self._pdu(within_s=PDU_TAKES_AT_MOST_S)

    def _malformed(self) -> Ended:
        with contextlib.suppress(Ended):
            self._send(_abort_pdu(reason=6))  # invalid PDU parameter value
        return Ended(End.MALFORMED)


def _acceptance(request: A_ASSOCIATE, contexts: list[PresentationContext]) -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = request.application_context_name
    primitive.calling_ae_title = request.calling_ae_title
    primitive.called_ae_title = request.called_ae_title
    primitive.result, primitive.result_source = 0, 1
    primitive.presentation_context_definition_results_list = contexts
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = MAX_PDU_BYTES
    implementation.implementation_class_uid = PYNETDICOM_IMPLEMENTATION_UID
    primitive.user_information = [length, implementation]
    pdu = A_ASSOCIATE_AC()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def _abort_pdu(*, reason: int) -> bytes:
    pdu = A_ABORT_RQ()
    pdu.source, pdu.reason_diagnostic = (2, reason) if reason else (0, 0)
    return bytes(pdu.encode())


def _command_fields(command: bytes) -> dict[int, bytes]:
    """Values by element of a command set, whose group is always 0000."""
    fields, at = {}, 0
    while at + 8 <= len(command):
        _, element, length = struct.unpack_from("<HHL", command, at)
        fields[element] = command[at + 8 : at + 8 + length]
        at += 8 + length
    return fields


def _number(fields: Mapping[int, bytes], element: int) -> int:
    return int.from_bytes(fields.get(element, b"")[:2], "little")


def _text(fields: Mapping[int, bytes], element: int) -> str:
    return fields.get(element, b"").decode("ascii", errors="replace").strip(" \0")


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, element, len(value)) + value


def _padded(text: str, pad: bytes) -> bytes:
    value = text.encode("ascii", errors="replace")
    return value + pad * (len(value) % 2)
