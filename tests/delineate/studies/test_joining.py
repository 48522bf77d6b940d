"""A series that comes in pieces: ordered and divided anew with all that is there."""

from __future__ import annotations

import random

import numpy as np
import pytest
from django.test import Client

from delineate import storage
from delineate.projects.models import Project
from delineate.studies.models import Encoding, Instance, Series, Slice, Study
from mlworker.contract.artifacts import unpack_array
from tests.delineate.factories import browser_of, lead_of, new_model, new_project
from tests.delineate.studies.files import fates, image, send_and_ingest, zipped

pytestmark = pytest.mark.django_db(transaction=True)

STORED = ("stored", "")


@pytest.fixture
def project() -> Project:
    """A project of one lead."""
    return new_project()


@pytest.fixture
def lead(project) -> Client:
    """The lead's browser."""
    return browser_of(lead_of(project))


def test_what_comes_later_takes_its_place_among_the_others(project, lead):
    images = [image(z=2.0 * n, seed=n, InstanceNumber=n + 1) for n in range(9)]
    late = list(range(9))
    random.Random(4).shuffle(late)
    for part in (late[:4], late[4:5], late[5:]):
        upload = send_and_ingest(lead, project, zipped([images[n] for n in part]))
        assert fates(upload) == [STORED] * len(part)

    series = Series.objects.get()
    assert series.slice_spacing_mm == 2.0
    assert series.oddities == []
    slices = list(series.slices.all())
    assert [slice_.index for slice_ in slices] == list(range(9))
    for slice_, file in zip(slices, images, strict=True):
        assert np.array_equal(unpack_array(storage.get(slice_.pixels_key)), file.pixel_array)
    assert Instance.objects.count() == 9
    assert Study.objects.get().number == 1


def test_a_gap_that_is_filled_is_no_gap_any_more(project, lead):
    first = [image(z=z) for z in (0.0, 1.0, 2.0, 5.0, 6.0)]
    send_and_ingest(lead, project, zipped(first))
    assert Series.objects.get().oddities == ["gaps"]
    send_and_ingest(lead, project, zipped([image(z=z) for z in (3.0, 4.0)]))
    assert Series.objects.get().oddities == []


def test_echoes_that_come_one_after_the_other_are_divided(project, lead):
    """The second echo's slices lie where the first's do: then there are two volumes."""
    echo = [
        [
            image(z=float(z), EchoTime=time, InstanceNumber=10 * n + z, seed=10 * n + z)
            for z in range(3)
        ]
        for n, time in enumerate((20, 80))
    ]
    send_and_ingest(lead, project, zipped(echo[0]))
    whole = Series.objects.get()
    send_and_ingest(lead, project, zipped([*echo[1][:2], *echo[0]]))
    upload = send_and_ingest(lead, project, zipped(echo[1]))
    assert fates(upload) == [("duplicate", "duplicate")] * 2 + [STORED]

    first, second = Series.objects.order_by("volume")
    assert first.id == whole.id
    assert (first.volume, second.volume) == (1, 2)
    for series, files in ((first, echo[0]), (second, echo[1])):
        kept = [unpack_array(storage.get(s.pixels_key)) for s in series.slices.all()]
        assert all(np.array_equal(a, b.pixel_array) for a, b in zip(kept, files, strict=True))
        assert series.instances.count() == 3
        assert {s.instance.series_id for s in series.slices.all()} == {series.id}


def test_volumes_that_turn_out_to_be_one_become_one(project, lead):
    """Of two scouts across each other, and later the stack that one of them is the first of."""
    across = image(z=0.0, ImageOrientationPatient=[0, 1, 0, 0, 0, -1], InstanceNumber=1)
    send_and_ingest(lead, project, zipped([across, image(z=0.0, InstanceNumber=2)]))
    assert Series.objects.count() == 2
    send_and_ingest(
        lead, project, zipped([image(z=float(z), InstanceNumber=2 + z) for z in (1, 2)])
    )
    largest, scout = Series.objects.order_by("volume")
    assert (largest.slices.count(), scout.slices.count()) == (3, 1)
    assert scout.slices.get().instance.series_id == scout.id


def test_a_window_that_slices_were_encoded_with_stays(project, lead):
    new_model()
    send_and_ingest(lead, project, zipped([image(z=5.0, WindowCenter=None, WindowWidth=None)]))
    before = Series.objects.get()
    send_and_ingest(lead, project, zipped([image(z=1.0)]))
    after = Series.objects.get()
    assert (after.window_centre, after.window_width) == (before.window_centre, before.window_width)
    assert Encoding.objects.count() == 2


def test_images_of_another_patient_do_not_join(project, lead):
    send_and_ingest(lead, project, zipped([image(z=0.0)]))
    upload = send_and_ingest(lead, project, zipped([image(z=1.0, patient="PAT-2")]))
    assert fates(upload) == [("refused", "study_mixed_patients")]
    assert Slice.objects.count() == 1


def test_images_that_name_nobody_join_their_series(project, lead):
    send_and_ingest(lead, project, zipped([image(z=0.0)]))
    upload = send_and_ingest(lead, project, zipped([image(z=1.0, patient=None)]))
    assert fates(upload) == [STORED]
    assert Series.objects.get().slices.count() == 2
