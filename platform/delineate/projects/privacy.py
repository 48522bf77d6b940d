"""What a project keeps of who a patient is: the options of DICOM PS3.15 E.3. Values only."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Identities(StrEnum):
    """Whether it is known here who a patient is."""

    REMOVED = "removed"
    KEPT = "kept"


class Dates(StrEnum):
    """What becomes of the days on which images were made."""

    REMOVED = "removed"
    SHIFTED = "shifted"


class Policy(BaseModel):
    """A project's choices. The defaults keep what no delineation can do without, and little more.

    ``identities`` kept: ``dates`` is without meaning, they stay as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    identities: Identities = Identities.REMOVED
    # Shifted by default: what was before and after, and how long between, is how a finding grows;
    # the days themselves, which others can know of somebody, are gone either way.
    dates: Dates = Dates.SHIFTED
    # Off: nothing here needs them, and each makes a patient easier to find among few.
    patient_characteristics: bool = False
    # Off: with a time and a region, a rare device says which hospital.
    device: bool = False
    # On: a dozen numbers that the standard itself lists as safe, without which some vendors'
    # volumes cannot be told apart or read in units.
    safe_private: bool = True
