"""What a file said of who and what it is, as it is sealed for escrow. Values only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pydantic import BaseModel, ConfigDict
from pydicom import Dataset

from delineate.studies.kept_attributes import REPLACED_UIDS

# Of each patient attribute, what a field here is called.
_OF_PATIENT: Final = {
    "number": "PatientID",
    "issuer": "IssuerOfPatientID",
    "name": "PatientName",
    "birth_date": "PatientBirthDate",
}


class Original(BaseModel):
    """A patient's identity and the UIDs that were replaced, by ours; in transit only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pseudonym: str
    number: str = ""
    issuer: str = ""
    name: str = ""
    birth_date: str = ""
    date_shift_days: int
    uids: dict[str, str]  # ours -> the file's


def original_of(
    dataset: Dataset, header: Dataset, *, pseudonym: str, date_shift_days: int
) -> Original:
    """What is lost between a file and its de-identified ``header``."""
    return Original(
        pseudonym=pseudonym,
        date_shift_days=date_shift_days,
        uids={
            str(header[keyword].value): str(dataset[keyword].value)
            for keyword in REPLACED_UIDS
            if keyword in header and keyword in dataset
        },
        **{
            field: str(dataset.get(keyword) or "").strip() for field, keyword in _OF_PATIENT.items()
        },
    )


def together(originals: Iterable[Original]) -> Original:
    """A study's files as one: they are of one patient, and some name nobody."""
    files = list(originals)
    named = next((each for each in files if each.number or each.name), files[0])
    uids = {ours: theirs for each in files for ours, theirs in each.uids.items()}
    return named.model_copy(update={"uids": uids})
