"""The birth certificate beside a series' masks: what was accepted, by whom, and how it was made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from delineate.exports.delineation import AcceptedMask, Delineation, File
from mlworker.contract import masks

VERSION: Final = 1
NAME: Final = "provenance.json"

_NO_PLACE: Final = (
    "The images do not say where in the patient they lie: affines have the pixel spacing where it "
    "is known, else 1 mm, and the image's own axes."
)


def write_provenance(delineation: Delineation, *, files: Sequence[File]) -> File:
    """JSON about the series and every mask in ``files``."""
    content = {
        "version": VERSION,
        "study": {
            "number": delineation.study_number,
            "study_uid": delineation.study_uid,
            "subject": delineation.subject,
        },
        "series": {
            "number": delineation.series_number,
            "series_uid": delineation.series_uid,
            "modality": delineation.modality,
            "rows": delineation.rows,
            "columns": delineation.columns,
            "pixel_spacing_mm": delineation.pixel_spacing_mm,  # between rows, between columns
            "orientation": delineation.orientation,
            "has_place": delineation.has_place,
            "note": "" if delineation.has_place else _NO_PLACE,
        },
        "review": None
        if delineation.review is None
        else {"by": delineation.review.by, "at": delineation.review.at.isoformat()},
        "slices": [
            {
                "number": each.number,
                "sop_instance_uid": each.sop_instance_uid,
                "frame_number": each.frame_number,
                "position": each.position,
            }
            for each in delineation.slices
        ],
        "labels": [
            {
                "value": label.value,
                "name": label.name,
                "color": label.color,
                # On all others nobody has accepted a mask: they are background in the files.
                "accepted_slices": [
                    each.slice_number for each in delineation.masks_of(label.value)
                ],
            }
            for label in delineation.labels
        ],
        "files": [
            {"name": file.name, "labels": file.labels, "slices": file.slices} for file in files
        ],
        "masks": [_about(each, delineation) for each in delineation.masks],
    }
    data = json.dumps(content, indent=1, ensure_ascii=False).encode()
    return File(name=NAME, data=data, labels=(), slices=())


def _about(accepted: AcceptedMask, delineation: Delineation) -> dict[str, object]:
    return {
        "slice": accepted.slice_number,
        "label": accepted.label_value,
        "revision": accepted.revision,
        "revision_id": accepted.revision_id,
        "by": accepted.by,
        "at": accepted.at.isoformat(),
        "active_seconds": accepted.active_seconds,
        "model_digest": accepted.model_digest or None,
        "model_name": delineation.model_names.get(accepted.model_digest),
        "prompts": {
            "points": len(accepted.points),
            "box": accepted.box is not None,
        },
        "hand_drawn_share": accepted.hand_drawn_share,
        "foreground_pixels": masks.area(accepted.runs),
        "digest": accepted.digest,
    }
