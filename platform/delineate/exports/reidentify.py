"""An export with its patients' identities put back: another zip, made for whoever asks.

It has a table of who is who, and DICOM objects that name the patient and refer to the images by
the UIDs that they have elsewhere. Nothing of it is written to a disk or kept.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import BinaryIO, Final
from zipfile import ZipFile

import pydicom

from delineate.exports.build import MANIFEST, add_member, member_line
from delineate.studies.originals import Original

IDENTITIES: Final = "identities.csv"
_COLUMNS: Final = (
    *("pseudonym", "patient_id", "issuer", "patient_name", "birth_date"),
    *("study_uid", "original_study_uid", "date_shift_days"),
)


def put_identities_back(source: BinaryIO, originals: Mapping[str, Original]) -> io.BytesIO:
    """The zip anew; ``originals`` by our study UID."""
    target = io.BytesIO()
    with ZipFile(source) as read, ZipFile(target, "w") as written:
        manifest = json.loads(read.read(MANIFEST))
        members = []
        for path in [*(member["path"] for member in manifest["members"]), IDENTITIES]:
            data = _table(originals) if path == IDENTITIES else read.read(path)
            if path.endswith(".dcm"):
                data = _known(data, originals)
            add_member(written, path, data)
            members.append(member_line(path, data))
        manifest |= {"members": members, "reidentified": True}
        add_member(written, MANIFEST, json.dumps(manifest, indent=1).encode())
    target.seek(0)
    return target


def _table(originals: Mapping[str, Original]) -> bytes:
    table = io.StringIO()
    lines = csv.writer(table)
    lines.writerow(_COLUMNS)
    for study_uid, original in originals.items():
        lines.writerow(
            [
                *(original.pseudonym, original.number, original.issuer, original.name),
                *(original.birth_date, study_uid, original.uids[study_uid]),
                original.date_shift_days,
            ]
        )
    return table.getvalue().encode()


def _known(data: bytes, originals: Mapping[str, Original]) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(data))
    original = originals[str(dataset.StudyInstanceUID)]
    for element in dataset.iterall():
        if element.VR == "UI" and str(element.value) in original.uids:
            element.value = original.uids[str(element.value)]
    dataset.PatientID, dataset.PatientName = original.number, original.name
    dataset.PatientBirthDate = original.birth_date
    if original.issuer:
        dataset.IssuerOfPatientID = original.issuer
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
