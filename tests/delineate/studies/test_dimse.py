"""C-STORE and C-ECHO as senders see them: what is acknowledged is kept, and who may not is told."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import pydicom
import pytest
from django.conf import settings
from django.db import connection
from pydicom import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from pynetdicom import AE
from pynetdicom.association import Association

from delineate import storage
from delineate.audit.models import Event
from delineate.config.env import Destination
from delineate.jobs import JobState
from delineate.projects.models import Project, Role
from delineate.studies import ingest, services
from delineate.studies.dimse import Bounds, Receiver
from delineate.studies.models import Instance, Slice, Study, Upload, WayIn
from tests.delineate.factories import CT, lead_of, new_member, new_project
from tests.delineate.studies.files import fates, image, written
from tests.delineate.studies.reference_files import DOSE, dose
from tests.system import free_port
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

BASIC_TEXT_REPORT = "1.2.840.10008.5.1.4.1.1.88.11"
VERIFICATION = "1.2.840.10008.1.1"
PATIENT = "Garland^Judith"
SUCCESS, NOT_AUTHORISED, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0x0124, 0xA700, 0xC000
SOP_CLASS_NOT_SUPPORTED = 0x0122


@pytest.fixture
def project() -> Project:
    """A project of one lead."""
    return new_project()


@contextmanager
def receiving(project: Project, *, bounds: Bounds | None = None, **more: object) -> Iterator[int]:
    """A receiver that knows CT1 as the project's lead; its port."""
    lead = Destination(str(project.id), lead_of(project).username)
    told = {"dicom_port": None, "dicom_callers": {"CT1": lead}, **more}
    receiver = Receiver(settings.ENVIRONMENT.model_copy(update=told), bounds or Bounds())
    thread = threading.Thread(target=_serve, args=[receiver])
    thread.start()
    try:
        yield receiver.port
    finally:
        receiver.stop()
        thread.join()


def _serve(receiver: Receiver) -> None:
    try:
        receiver.serve()
    finally:
        connection.close()  # of this thread


def associate(
    port: int,
    *,
    calling: str = "CT1",
    called: str = "DELINEATE",
    offered: Mapping[str, Sequence[str]] | None = None,
) -> Association:
    """Ask for an association, by default for CT images; it may have been rejected."""
    sender = AE(calling)
    for sop_class, syntaxes in (offered or {CT: [ExplicitVRLittleEndian]}).items():
        for syntax in syntaxes:
            sender.add_requested_context(sop_class, syntax)
    return sender.associate("127.0.0.1", port, ae_title=called)


def test_an_image_is_kept_as_it_was_sent_and_ingested(project):
    sent = image(sop="1.2.3.4", PatientName=PATIENT)
    with receiving(project) as port:
        association = associate(port)
        assert association.send_c_store(sent).Status == SUCCESS
        upload = Upload.objects.get()
        assert (upload.state, upload.way_in) == (JobState.ARRIVING, WayIn.DIMSE)
        association.release()
    upload.refresh_from_db()
    assert (upload.state, upload.by, upload.blob_count) == (JobState.PENDING, lead_of(project), 1)
    assert Event.objects.get(action="upload_received").data["way_in"] == "dimse"

    kept = storage.get(upload.blob_key(0))
    read = pydicom.dcmread(io.BytesIO(kept))
    assert read == sent
    assert kept.endswith(_dataset_of(sent))
    assert (read.file_meta.MediaStorageSOPClassUID, read.file_meta.MediaStorageSOPInstanceUID) == (
        CT,
        "1.2.3.4",
    )
    ingest.ingest(upload.id)
    upload.refresh_from_db()
    assert fates(upload) == [("stored", "")]


def test_an_association_is_an_upload_and_a_resend_makes_no_doubles(project):
    images = [image(z=float(z), seed=z) for z in range(3)]
    for _ in range(2):
        with receiving(project) as port:
            association = associate(port)
            assert [association.send_c_store(each).Status for each in images] == [SUCCESS] * 3
            association.release()
        ingest.ingest(Upload.objects.latest("created_at").id)
    again, first = Upload.objects.all()
    assert fates(first) == [("stored", "")] * 3
    assert fates(again) == [("duplicate", "duplicate")] * 3
    assert (Study.objects.count(), Slice.objects.count()) == (1, 3)


def test_no_sender_need_write_its_images_anew(project):
    syntaxes = [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        JPEG2000Lossless,
        RLELossless,
    ]
    with receiving(project) as port:
        association = associate(port, offered={CT: syntaxes})
        agreed = [context.transfer_syntax[0] for context in association.accepted_contexts]
        association.release()
    assert agreed == syntaxes


def test_of_several_transfer_syntaxes_the_senders_first_is_taken(project):
    sender = AE("CT1")
    sender.add_requested_context(CT, [RLELossless, ExplicitVRLittleEndian])
    with receiving(project) as port:
        association = sender.associate("127.0.0.1", port, ae_title="DELINEATE")
        (context,) = association.accepted_contexts
        association.release()
    assert context.transfer_syntax == [RLELossless]


def test_a_compressed_image_arrives_as_it_is(project):
    sent = image(
        pixels=np.random.default_rng(0).integers(0, 255, (8, 10), dtype=np.uint8), WindowCenter=None
    )
    sent.compress(RLELossless, generate_instance_uid=False)
    with receiving(project) as port:
        association = associate(port, offered={CT: [RLELossless]})
        assert association.send_c_store(sent).Status == SUCCESS
        association.release()
    upload = Upload.objects.get()
    assert pydicom.dcmread(io.BytesIO(storage.get(upload.blob_key(0)))).PixelData == sent.PixelData
    ingest.ingest(upload.id)
    upload.refresh_from_db()
    assert fates(upload) == [("stored", "")]


def test_an_echo_is_answered_and_leaves_nothing(project):
    with receiving(project) as port:
        association = associate(port, offered={VERIFICATION: [ImplicitVRLittleEndian]})
        assert association.send_c_echo().Status == SUCCESS
        association.release()
    assert not Upload.objects.exists()


def test_what_is_no_image_is_not_agreed_upon(project):
    with receiving(project) as port:
        association = associate(
            port,
            offered={
                CT: [ExplicitVRLittleEndian, "1.2.3.4.5"],
                BASIC_TEXT_REPORT: [ExplicitVRLittleEndian],
            },
        )
        results = {(c.abstract_syntax, c.result) for c in association.rejected_contexts}
        assert len(association.accepted_contexts) == 1
        association.release()
    assert results == {(CT, 4), (BASIC_TEXT_REPORT, 3)}


def test_references_are_taken(project):
    with receiving(project) as port:
        association = associate(port, offered={DOSE: [ExplicitVRLittleEndian]})
        assert association.send_c_store(dose()).Status == SUCCESS
        association.release()
        wait_until(lambda: Upload.objects.filter(state=JobState.PENDING).exists())
    upload = Upload.objects.get()
    ingest.ingest(upload.id)
    upload.refresh_from_db()
    assert fates(upload) == [("stored", "kept_as_reference")]


def test_an_image_of_another_class_than_was_agreed_is_refused(project):
    with receiving(project) as port:
        association = associate(port)
        other = image(SOPClassUID=BASIC_TEXT_REPORT)
        # A sender that keeps to the agreement would not send it.
        association._accepted_cx[1].abstract_syntax = BASIC_TEXT_REPORT
        assert association.send_c_store(other).Status == SOP_CLASS_NOT_SUPPORTED
        association.release()
    assert not Upload.objects.exists()


@pytest.mark.parametrize(
    ("calling", "called", "reason"),
    [("STRANGER", "DELINEATE", 3), ("CT1", "ORTHANC", 7), ("LOST", "DELINEATE", 3)],
)
def test_who_is_not_expected_is_rejected(project, caplog, calling, called, reason):
    gone = Destination(str(project.id), "nobody")
    lead = Destination(str(project.id), lead_of(project).username)
    with receiving(project, dicom_callers={"CT1": lead, "LOST": gone}) as port:
        association = associate(port, calling=calling, called=called)
        assert association.is_rejected
        assert _reason(association) == (1, 1, reason)
    assert any(calling in line and "Rejected" in line for line in caplog.messages)
    assert "'LOST' will be rejected: There is no user nobody." in caplog.messages


def test_a_member_without_the_right_is_rejected(project, caplog):
    annotator = Destination(str(project.id), new_member(project, Role.ANNOTATOR).username)
    with receiving(project, dicom_callers={"CT1": annotator}) as port:
        assert associate(port).is_rejected
    assert any("As annotator you may not upload" in line for line in caplog.messages)


def test_a_right_that_is_taken_away_ends_what_is_sent(project):
    with receiving(project, bounds=Bounds(upload_images=1)) as port:
        association = associate(port)
        assert association.send_c_store(image()).Status == SUCCESS
        project.memberships.all().delete()
        refused = association.send_c_store(image(seed=1))
        assert refused.Status == NOT_AUTHORISED
        association.release()
    assert Upload.objects.get().blob_count == 1


def test_a_full_disk_is_said_before_it_is_full(project):
    with receiving(project, min_free_bytes=2**60) as port:
        association = associate(port)
        refused = association.send_c_store(image())
        association.release()
    assert (refused.Status, "No space left" in refused.ErrorComment) == (OUT_OF_RESOURCES, True)
    assert not Upload.objects.exists()


def test_what_cannot_be_written_is_not_acknowledged(project):
    with receiving(project) as port:
        association = associate(port)
        assert association.send_c_store(image()).Status == SUCCESS
        with _in_the_way_of_uploads():
            assert association.send_c_store(image(seed=1)).Status == OUT_OF_RESOURCES
        assert association.send_c_store(image(seed=1)).Status == SUCCESS
        association.release()
    services.settle_left_behind(WayIn.DIMSE)  # what could not be ended while the store was away
    assert sorted(Upload.objects.values_list("state", "blob_count")) == [("pending", 1)] * 2


def test_an_image_beyond_the_bound_is_refused_and_the_next_is_taken(project):
    small, large = image(), image(pixels=np.zeros((64, 64), np.int16))
    with receiving(project, bounds=Bounds(image_bytes=4096)) as port:
        association = associate(port)
        assert association.send_c_store(large).Status == OUT_OF_RESOURCES
        assert association.send_c_store(small).Status == SUCCESS
        association.release()
    assert Upload.objects.get().blob_count == 1


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_an_image_without_a_uid_is_refused(project):
    with receiving(project) as port:
        association = associate(port)
        assert association.send_c_store(image(sop="no-uid")).Status == CANNOT_UNDERSTAND
        association.release()


def test_one_association_too_many_is_told_so(project):
    with receiving(project, bounds=Bounds(associations=1)) as port:
        first = associate(port)
        second = associate(port)
        assert _reason(second) == (2, 3, 2)
        first.release()
        second.abort()


def test_a_long_delivery_is_several_uploads(project):
    with receiving(project, bounds=Bounds(upload_images=2)) as port:
        association = associate(port)
        for seed in range(5):
            assert association.send_c_store(image(seed=seed)).Status == SUCCESS
        states = Upload.objects.order_by("created_at").values_list("state", flat=True)
        assert list(states) == ["pending", "pending", "arriving"]
        association.release()
    assert sorted(Upload.objects.values_list("blob_count", flat=True)) == [1, 2, 2]


def test_what_came_before_a_pause_is_ingested_while_the_sender_is_silent(project):
    with receiving(project, bounds=Bounds(upload_takes_s=0.1)) as port:
        association = associate(port)
        assert association.send_c_store(image()).Status == SUCCESS
        wait_until(_becomes(state=JobState.PENDING))
        assert association.is_established
        association.release()


def test_a_sender_that_falls_silent_is_let_go(project):
    with receiving(project, bounds=Bounds(silent_for_s=0.1)) as port:
        association = associate(port)
        association.send_c_store(image())
        wait_until(lambda: association.is_aborted)
        wait_until(_becomes(state=JobState.PENDING))


@pytest.mark.parametrize("ends", [Association.abort, lambda a: a.dul.socket.close()])
def test_what_was_acknowledged_is_ingested_however_the_sender_ends(project, ends):
    with receiving(project) as port:
        association = associate(port)
        association.send_c_store(image())
        ends(association)
        wait_until(_becomes(state=JobState.PENDING))


def test_what_is_not_of_the_protocol_is_let_go_and_others_are_served(project, caplog):
    noises = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\x00\xff\xff\xff\xff" + bytes(64),  # a request of 4 GiB
        b"\x01\x00\x00\x00\x00\x10" + bytes(16),
        b"\x04\x00\x00\x00\x00\x06" + bytes(6),  # data before a request
        b"",
    ]
    with receiving(project) as port:
        for noise in noises:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as stranger:
                stranger.sendall(noise)
                stranger.shutdown(socket.SHUT_WR)
                assert stranger.recv(100)[:1] in (b"", b"\x07")
        association = associate(port)
        assert association.send_c_store(image()).Status == SUCCESS
        association.release()
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_nothing_about_a_patient_is_logged(project, caplog):
    caplog.set_level("DEBUG", logger="delineate")
    with receiving(project) as port:
        association = associate(port)
        association.send_c_store(image(PatientName=PATIENT, patient="PAT-77", sop="1.2.77"))
        association.send_c_store(image(PatientName=PATIENT, patient="PAT-77", sop="no-uid"))
        association.release()
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("delineate")]
    assert any("1 images kept, 1 not" in line for line in ours)
    assert not [line for line in ours if "Garland" in line or "PAT-77" in line or "1.2.77" in line]


def test_an_upload_that_the_sweep_has_ended_is_followed_by_another(project):
    with receiving(project) as port:
        association = associate(port)
        association.send_c_store(image())
        services.settle_left_behind(WayIn.DIMSE)
        assert association.send_c_store(image(seed=1)).Status == SUCCESS
        association.release()
    assert list(Upload.objects.values_list("state", "blob_count")) == [("pending", 1)] * 2


def test_what_was_acknowledged_before_a_kill_is_ingested_by_the_next(project):
    images = [image(z=float(z), seed=z) for z in range(4)]
    port = free_port()
    with _process(project, port) as first:
        association = _wait_until_associated(port)
        line = _line_of(association)
        assert [association.send_c_store(each).Status for each in images[:3]] == [SUCCESS] * 3
        first.kill()
        first.wait()
        association.abort()
        line.close()  # pynetdicom does not, of a peer that is gone
    assert Upload.objects.get().state == JobState.ARRIVING

    with _process(project, port) as second:
        association = _wait_until_associated(port)
        line = _line_of(association)
        killed = Upload.objects.get()
        assert killed.state == JobState.PENDING
        ingest.ingest(killed.id)
        # Its sender does not know how far it had come, and sends everything again.
        assert [association.send_c_store(each).Status for each in images[:3]] == [SUCCESS] * 3
        second.send_signal(signal.SIGTERM)  # with the association still open
        assert second.wait(timeout=30) == 0
        association.abort()
        line.close()

    again = Upload.objects.get(state=JobState.PENDING)
    ingest.ingest(again.id)
    killed.refresh_from_db()
    again.refresh_from_db()
    assert fates(killed) == [("stored", "")] * 3
    assert fates(again) == [("duplicate", "duplicate")] * 3
    assert (Instance.objects.count(), Study.objects.count()) == (3, 1)


@contextmanager
def _process(project: Project, port: int) -> Iterator[subprocess.Popen[bytes]]:
    database = connection.settings_dict
    url = (
        f"postgres://{database['USER']}:{database['PASSWORD']}"
        f"@{database['HOST']}:{database['PORT']}/{database['NAME']}"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "django", "receive_dicom"],
        env={
            **os.environ,
            "DATABASE_URL": url,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "DELINEATE_DICOM_PORT": str(port),
            "DELINEATE_DICOM_CALLERS": f"CT1={project.id}:{lead_of(project).username}",
        },
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait_until_associated(port: int) -> Association:
    association: list[Association] = []

    def is_there() -> bool:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return False
        association.append(associate(port))
        return bool(association[-1].is_established)

    wait_until(is_there)
    return association[-1]


def _reason(rejected: Association) -> tuple[int | None, ...]:
    """Result, source and reason of a rejection."""
    answer = rejected.acceptor.primitive
    assert answer is not None
    return (answer.result, answer.result_source, answer.diagnostic)


def _line_of(association: Association) -> socket.socket:
    assert association.dul.socket is not None
    assert association.dul.socket.socket is not None
    return association.dul.socket.socket


def _becomes(*, state: JobState) -> Callable[[], bool]:
    return lambda: Upload.objects.filter(state=state).exists()


@contextmanager
def _in_the_way_of_uploads() -> Iterator[None]:
    """A store that cannot be written: a file stands where its folder should be."""
    filesystem, path = storage._locate("uploads")
    filesystem.mv(path, f"{path}-aside", recursive=True)
    filesystem.touch(path)
    try:
        yield
    finally:
        filesystem.rm(path)
        filesystem.mv(f"{path}-aside", path, recursive=True)


def _dataset_of(sent: Dataset) -> bytes:
    file = written(sent)
    return file[132 + 12 + int.from_bytes(file[140:144], "little") :]
