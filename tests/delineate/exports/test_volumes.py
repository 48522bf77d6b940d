"""Masks of a volume that came as a NIfTI go back with its own affine, to the last bit."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest

from delineate.studies.models import Series
from tests.delineate import factories
from tests.delineate.studies.files import send_and_ingest
from tests.delineate.studies.test_volumes import turned, values

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (2, 4)], ids=["sform", "qform", "both"])
def test_masks_go_back_with_the_affine_that_came(left, codes, export_of) -> None:
    sform_code, qform_code = codes
    image = nibabel.Nifti1Image(values(), turned(left=left), dtype=np.int16)
    image.set_sform(image.affine, code=sform_code)
    image.set_qform(image.affine, code=qform_code)
    came = nibabel.Nifti1Image.from_bytes(image.to_bytes())
    project = factories.new_project("kidney")
    send_and_ingest(factories.browser_of(factories.lead_of(project)), project, came.to_bytes())
    series = Series.objects.get()
    task = factories.new_task(series)
    voxels = np.random.default_rng(3).random((5, 6, 4)) < 0.4
    for slice_ in series.slices.all():
        mask = voxels[:, :, slice_.frame_number - 1].T
        factories.accept_mask(
            task, mask, index=slice_.index, label=factories.label_of(project, "kidney")
        )

    fetched = export_of(project, "nifti")

    assert fetched.export.state == "done", fetched.export.error_message
    went = nibabel.Nifti1Image.from_bytes(gzip.decompress(fetched.only(".nii.gz")))
    np.testing.assert_array_equal(went.affine, came.affine)
    np.testing.assert_array_equal(np.asarray(went.dataobj), voxels)
    for field in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b"):
        np.testing.assert_array_equal(went.header[field], came.header[field])
    np.testing.assert_array_equal(went.header["pixdim"][:4], came.header["pixdim"][:4])
    for format in ("dicom_seg", "png"):
        assert export_of(project, format).export.state == "done"
