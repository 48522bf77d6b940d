"""Images that are sent by C-STORE (PS3.4 B), and C-ECHO: one thread for each association.

A sender forgets an image that was answered with success: by then it is on the disk, in an upload
that is ingested even when this process dies before it says so. An association is an upload; a long
one is several, so that what came first is seen soon. An image is kept as it was sent: nothing is
decoded here. What is logged names machines, never patients.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import socket
import struct
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from types import FrameType
from typing import Final

import django.db
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID, AllTransferSyntaxes

from delineate import storage
from delineate.accounts.models import User
from delineate.config.env import Destination, Environment
from delineate.errors import Conflict, DelineateError, NotAllowed, NotFound
from delineate.projects.models import Project
from delineate.projects.permissions import Action, require
from delineate.studies import services
from delineate.studies.archive import MAX_FILE_BYTES
from delineate.studies.association import (
    Association,
    Command,
    End,
    Ended,
    Message,
    Rejection,
    Request,
    Status,
)
from delineate.studies.kinds import TAKEN
from delineate.studies.models import Upload, WayIn
from delineate.studies.selectors import destination_named

logger = logging.getLogger(__name__)

LOOKS_EVERY_S: Final = 1.0  # at what is due while a sender says nothing
STOPS_WITHIN_S: Final = 8.0  # less than the supervisor's patience
_VERIFICATION: Final = UID("1.2.840.10008.1.1")
# Not stricter: devices write components with leading zeros, and who refuses them loses the image.
_IS_UID: Final = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True)
class Bounds:
    """What is taken at most."""

    associations: int = 20  # at the same time; each has a thread and up to 16 MiB of memory
    silent_for_s: float = 60.0
    image_bytes: int = MAX_FILE_BYTES
    # Of an upload, which is then ended and followed by another.
    upload_images: int = 2_000
    upload_takes_s: float = 5.0


def run(environment: Environment) -> None:
    """Receive until SIGTERM; what has been received by then is ingested."""
    assert environment.dicom_port is not None, "it is only started where a port is set"
    services.settle_left_behind(WayIn.DIMSE)
    receiver = Receiver(environment, Bounds())

    def stop(_number: int, _frame: FrameType | None) -> None:
        receiver.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    receiver.serve()


class Receiver:
    """Listens from when it is made; ``serve`` answers until ``stop``."""

    def __init__(self, environment: Environment, bounds: Bounds) -> None:
        self._environment = environment
        self._bounds = bounds
        host, port = environment.dicom_host, environment.dicom_port or 0
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listening = socket.create_server((host, port), family=family)
        self._stopping = False
        self._lock = threading.Lock()
        self._running: dict[Association, threading.Thread] = {}

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listening.getsockname()[1])

    def serve(self) -> None:
        """Answer associations until ``stop``, and end those that last."""
        self._look_at_callers()
        logger.info("Receiving DICOM as %s on port %d", self._environment.dicom_ae_title, self.port)
        while not self._stopping:
            try:
                connection, address = self._listening.accept()
            except OSError as error:
                if not self._stopping:  # out of files, or a peer that left at once
                    logger.warning("A connection could not be taken: %s", error)
                    time.sleep(LOOKS_EVERY_S)
                continue
            self._begin(connection, str(address[0]))
        self._listening.close()
        with self._lock:
            running = dict(self._running)
        for association in running:
            association.interrupt()
        deadline = time.monotonic() + STOPS_WITHIN_S
        for thread in running.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def stop(self) -> None:
        """Take no more; safe to call from a signal handler and from another thread."""
        self._stopping = True
        with suppress(OSError):  # it is closed already
            self._listening.shutdown(socket.SHUT_RDWR)

    def _begin(self, connection: socket.socket, address: str) -> None:
        association = Association(connection, max_dataset_bytes=self._bounds.image_bytes)
        with self._lock:
            count = len(self._running)
            # Twice as many: those beyond the bound are there to be told so.
            if count >= 2 * self._bounds.associations:
                connection.close()
                return
            thread = threading.Thread(
                target=partial(
                    self._answer,
                    connection,
                    association,
                    address,
                    is_one_too_many=count >= self._bounds.associations,
                )
            )
            self._running[association] = thread
        thread.start()

    def _answer(
        self,
        connection: socket.socket,
        association: Association,
        address: str,
        *,
        is_one_too_many: bool,
    ) -> None:
        try:
            self._converse(association, address, is_one_too_many=is_one_too_many)
        except Ended:
            pass  # before it was an association: somebody tried the port
        except Exception:
            logger.exception("An association from %s failed", address)
            association.abort()
        finally:
            connection.close()
            django.db.connections.close_all()
            with self._lock:
                del self._running[association]

    def _converse(self, association: Association, address: str, *, is_one_too_many: bool) -> None:
        request = association.requested()
        who = f"{request.calling!r} at {address}"
        if is_one_too_many:
            logger.warning("Rejected %s: there are %d others", who, self._bounds.associations)
            association.reject(Rejection.LOCAL_LIMIT_EXCEEDED)
            return
        if request.called != self._environment.dicom_ae_title:
            logger.warning("Rejected %s: it calls %r", who, request.called)
            association.reject(Rejection.CALLED_AE_TITLE_NOT_RECOGNISED)
            return
        try:
            project, user = self._sender(request)
        except DelineateError as error:
            logger.warning("Rejected %s: %s", who, error)
            association.reject(Rejection.CALLING_AE_TITLE_NOT_RECOGNISED)
            return
        association.accept(request, taken=_taken())
        delivery = _Delivery(project, user, self._bounds, self._environment)
        how = End.LOST
        try:
            delivery.take(association)
        except Ended as ended:
            how = ended.how
        finally:
            delivery.end()
            logger.info(
                "From %s: %d images kept, %d not; it was %s",
                *(who, delivery.kept, delivery.refused, how),
            )
        if how == End.RELEASED:
            association.confirm_release()

    def _sender(self, request: Request) -> tuple[Project, User]:
        """Whose upload a caller's images are; raises NotFound, NotAllowed."""
        destination = self._environment.dicom_callers.get(request.calling)
        if destination is None:
            raise NotFound("DELINEATE_DICOM_CALLERS does not name it.")
        return _open(destination)

    def _look_at_callers(self) -> None:
        """Say at once who will be rejected; not for good: accounts and rights come and go."""
        for title, destination in self._environment.dicom_callers.items():
            try:
                _open(destination)
            except DelineateError as error:
                logger.warning("%r will be rejected: %s", title, error)


class _Delivery:
    """The images of one association."""

    def __init__(
        self, project: Project, user: User, bounds: Bounds, environment: Environment
    ) -> None:
        self.kept = self.refused = 0
        self._project = project
        self._user = user
        self._bounds = bounds
        self._environment = environment
        self._upload: Upload | None = None
        self._upload_since = 0.0

    def take(self, association: Association) -> None:
        """Answer every message until the association has ended: raises Ended."""
        heard_at = time.monotonic()
        while True:
            message = association.receive(within_s=LOOKS_EVERY_S)
            if message is not None:
                with closing(message):
                    status, comment = self._answer_to(message)
                association.answer(message, status, comment=comment)
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > self._bounds.silent_for_s:
                association.abort()
                raise Ended(End.SILENT)
            if self._is_due():
                self.end()

    def end(self) -> None:
        """Let what has been kept be ingested."""
        upload, self._upload = self._upload, None
        if upload is None:
            return
        try:
            services.end_upload(upload)
        except (django.db.Error, OSError) as error:
            logger.warning("Upload %s waits for the sweep: %s", upload.id, error)

    def _answer_to(self, message: Message) -> tuple[Status, str]:
        if message.command == Command.ECHO:
            return Status.SUCCESS, ""
        status, comment = self._outcome(message)
        if status == Status.SUCCESS:
            self.kept += 1
        else:
            self.refused += 1
            logger.warning("An image was refused with 0x%04X: %s", status, comment)
        return status, comment

    def _outcome(self, message: Message) -> tuple[Status, str]:
        sop_class = message.context.sop_class
        if message.sop_class != sop_class or sop_class not in TAKEN:
            return Status.SOP_CLASS_NOT_SUPPORTED, "Not the SOP class that was agreed upon."
        if message.dataset is None or not _IS_UID.fullmatch(message.sop_instance):
            return Status.CANNOT_UNDERSTAND, "There is no image, or it has no valid UID."
        if not message.is_whole:
            return Status.OUT_OF_RESOURCES, "The image is larger than may be sent."
        try:
            self._keep(message)
        except (NotAllowed, NotFound) as error:
            return Status.NOT_AUTHORISED, str(error)
        except OSError as error:
            self.end()
            return Status.OUT_OF_RESOURCES, f"It cannot be stored: {error.strerror}."
        except django.db.Error:
            self._upload = None  # the sweep ends it
            django.db.connection.close()
            return Status.OUT_OF_RESOURCES, "The database is away for the moment."
        return Status.SUCCESS, ""

    def _keep(self, message: Message) -> None:
        """Have the image on the disk, in an upload that is owed whatever happens to us."""
        head = _file_head(message)
        try:
            services.add_blob(self._upload or self._begin(), chain([head], message.chunks()))
        except Conflict:  # the sweep took us for dead and has ended it
            services.add_blob(self._begin(), chain([head], message.chunks()))

    def _begin(self) -> Upload:
        free = storage.free_bytes()
        if free is not None and free < self._environment.min_free_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._upload = services.begin_upload(self._project, by=self._user, way_in=WayIn.DIMSE)
        self._upload_since = time.monotonic()
        return self._upload

    def _is_due(self) -> bool:
        upload = self._upload
        return upload is not None and (
            upload.blob_count >= self._bounds.upload_images
            or upload.size_bytes >= self._environment.max_upload_bytes
            or time.monotonic() - self._upload_since > self._bounds.upload_takes_s
        )


def _open(destination: Destination) -> tuple[Project, User]:
    project, user = destination_named(destination.project, username=destination.username)
    require(user, Action.UPLOAD, project)
    return project, user


@cache
def _taken() -> dict[UID, frozenset[UID]]:
    """Transfer syntaxes by SOP class: all that can be decoded, so that no sender need do it."""
    readable = frozenset(filter(_is_readable, AllTransferSyntaxes))
    return dict.fromkeys([_VERIFICATION, *map(UID, TAKEN)], readable)


def _is_readable(syntax: UID) -> bool:
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _file_head(message: Message) -> bytes:
    """What a file has before its dataset: preamble and meta information (PS3.10 7.1)."""
    # OB has a length of four bytes, the others of two (PS3.5 7.1.2).
    rest = (
        struct.pack("<HH2sHL", 2, 1, b"OB", 0, 2)
        + b"\0\1"
        + b"".join(
            struct.pack("<HH2sH", 2, element, b"UI", len(value)) + value
            for element, value in (
                (0x0002, _even(message.context.sop_class)),
                (0x0003, _even(message.sop_instance)),
                (0x0010, _even(message.context.transfer_syntax)),
                (0x0012, _even(PYDICOM_IMPLEMENTATION_UID)),
            )
        )
    )
    return bytes(128) + b"DICM" + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(rest)) + rest


def _even(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)
