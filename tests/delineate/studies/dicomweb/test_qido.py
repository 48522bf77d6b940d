"""Searching: what is found, what is told of it, and what it costs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from django.test import Client

from delineate.studies.models import Instance, Series, Slice, Study
from tests.delineate.factories import browser_of, lead_of, new_project, new_study
from tests.delineate.studies.files import image, send_and_ingest, zipped

pytestmark = pytest.mark.django_db

MR = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
def project():
    """A project of one lead."""
    return new_project()


@pytest.fixture
def lead(project) -> Client:
    """The lead's browser."""
    return browser_of(lead_of(project))


@pytest.fixture
def content(project, lead):
    """Of two patients: a CT of three slices with an MR of two, and an MR of one."""
    files = [
        *(
            image(z=float(z), seed=z, InstanceNumber=z + 1, BodyPartExamined="LIVER")
            for z in range(3)
        ),
        *(
            image(
                z=float(z),
                seed=z,
                series="1.2.3.2",
                SeriesNumber=7,
                Modality="MR",
                SOPClassUID=MR,
                InstanceNumber=z + 1,
                EchoTime=2.5,
            )
            for z in range(2)
        ),
        image(
            study="1.2.4",
            series="1.2.4.1",
            patient="PAT-2",
            Modality="MR",
            SOPClassUID=MR,
            pixels=np.zeros((5, 6), np.uint16),
        ),
    ]
    send_and_ingest(lead, project, zipped(files))
    assert Instance.objects.count() == 6
    return project


def found(client: Client, project, address: str, **parameters) -> list[dict[str, Any]]:
    """What a search finds."""
    response = client.get(f"/dicomweb/{project.id}/{address}", parameters)
    assert response.status_code == 200, response.content
    assert response["Content-Type"] == "application/dicom+json"
    items: list[dict[str, Any]] = response.json()
    return items


def values(items: list[dict[str, Any]], tag: str) -> list[Any]:
    """An attribute's first value of each."""
    return [item[tag]["Value"][0] for item in items]


def test_studies_are_told_of_as_the_standard_wants(content, lead):
    first, second = found(lead, content, "studies")
    study = Study.objects.get(number=1)
    root = f"http://testserver/dicomweb/{content.id}/studies"
    assert first == {
        "00080020": {"vr": "DA"},
        "00080030": {"vr": "TM"},
        "00080050": {"vr": "SH"},
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        "00080061": {"vr": "CS", "Value": ["CT", "MR"]},
        "00080090": {"vr": "PN"},
        "00081190": {"vr": "UR", "Value": [f"{root}/{study.study_uid}"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": study.subject.pseudonym}]},
        "00100020": {"vr": "LO", "Value": [study.subject.pseudonym]},
        "00100030": {"vr": "DA"},
        "00100040": {"vr": "CS"},
        "0020000D": {"vr": "UI", "Value": [study.study_uid]},
        "00200010": {"vr": "SH", "Value": ["1"]},
        "00201206": {"vr": "IS", "Value": [2]},
        "00201208": {"vr": "IS", "Value": [5]},
    }
    assert list(first) == sorted(first)
    assert (second["00201206"]["Value"], second["00201208"]["Value"]) == ([1], [1])


def test_series_are_told_of_as_the_standard_wants(content, lead):
    items = found(lead, content, "series")
    assert [(item["00200011"]["Value"], item["00080060"]["Value"]) for item in items] == [
        ([4], ["CT"]),
        ([7], ["MR"]),
        ([4], ["MR"]),
    ]
    assert values(items, "00201209") == [3, 2, 1]
    assert items[0]["00180015"]["Value"] == ["LIVER"]
    assert "00180015" not in items[1]
    series = Series.objects.get(number=7)
    assert items[1]["0020000E"]["Value"] == [series.series_uid]
    address = f"/studies/{series.study.study_uid}/series/{series.series_uid}"
    assert items[1]["00081190"]["Value"][0].endswith(address)
    assert {"00400244", "00400245", "00080056", "00100020", "0020000D"} <= items[0].keys()


def test_instances_are_told_of_as_the_standard_wants(content, lead):
    items = found(lead, content, "instances")
    assert len(items) == 6
    for item in items:
        instance = Instance.objects.get(sop_instance_uid=item["00080018"]["Value"][0])
        assert item["00080016"]["Value"] == [instance.sop_class_uid]
        assert item["00280010"]["Value"] == [instance.series.rows]
        assert item["00280011"]["Value"] == [instance.series.columns]
        assert item["00280100"]["Value"] == [16]
        assert item["0020000E"]["Value"] == [instance.series.series_uid]
        assert item["00081190"]["Value"][0].endswith(instance.sop_instance_uid)
        assert "00280008" not in item  # one frame
    assert sorted(values(items[:3], "00200013")) == [1, 2, 3]
    assert items[5]["00200013"] == {"vr": "IS"}


def test_searches_lie_within_what_their_address_names(content, lead):
    study, other = Study.objects.order_by("number")
    series = study.series.get(number=7)
    assert len(found(lead, content, f"studies/{study.study_uid}/series")) == 2
    assert len(found(lead, content, f"studies/{study.study_uid}/instances")) == 5
    in_series = f"series/{series.series_uid}/instances"
    assert len(found(lead, content, f"studies/{study.study_uid}/{in_series}")) == 2
    assert found(lead, content, f"studies/{other.study_uid}/{in_series}") == []
    assert found(lead, content, "studies/1.2.3/series") == []


# By parameters: how many studies, series and instances are found.
MATCHES = [
    ({}, (2, 3, 6)),
    ({"Modality": "CT"}, (1, 1, 3)),
    ({"00080060": "MR"}, (2, 2, 3)),
    ({"Modality": "M*"}, (2, 2, 3)),
    ({"Modality": "?T,US"}, (1, 1, 3)),
    ({"Modality": "CT\\MR"}, (2, 3, 6)),
    ({"ModalitiesInStudy": "CT"}, (1, 2, 5)),
    ({"ModalitiesInStudy": "mr"}, (0, 0, 0)),
    ({"SeriesNumber": "4"}, (2, 2, 4)),
    ({"SeriesNumber": "4.5"}, (0, 0, 0)),
    ({"SeriesNumber": "99999999999"}, (0, 0, 0)),
    ({"Modality": "MR", "SeriesNumber": "4"}, (1, 1, 1)),
    ({"SOPClassUID": MR}, (2, 2, 3)),
    ({"SOPClassUID": f"{MR},1.2.840.10008.5.1.4.1.1.2"}, (2, 3, 6)),
    ({"PatientID": "*"}, (2, 3, 6)),
    ({"PatientID": "S-*"}, (2, 3, 6)),
    ({"PatientID": "S-"}, (0, 0, 0)),
    ({"PatientName": "S-????????????"}, (2, 3, 6)),
    ({"PatientID": "S-.*"}, (0, 0, 0)),
    ({"StudyID": "2"}, (1, 1, 1)),
    ({"StudyID": "two"}, (0, 0, 0)),
    ({"StudyID": "?"}, (2, 3, 6)),
    ({"BodyPartExamined": "LIV*"}, (1, 1, 3)),
    ({"BodyPartExamined": "LIVER"}, (1, 1, 3)),
    ({"InstanceNumber": "2"}, (1, 2, 2)),
    ({"EchoTime": "2.50"}, (1, 1, 2)),
    ({"Rows": "5"}, (1, 1, 1)),
    ({"NumberOfFrames": "1"}, (2, 3, 6)),
    ({"StudyDate": "20200101-20201231"}, (1, 1, 1)),
    ({"StudyDate": "20200615"}, (1, 1, 1)),
    ({"StudyDate": "-20200614"}, (0, 0, 0)),
    ({"StudyDate": "20200615-"}, (1, 1, 1)),
    ({"StudyTime": "10-11"}, (1, 1, 1)),
    ({"StudyTime": "1130"}, (1, 1, 1)),
    ({"StudyTime": "12-"}, (0, 0, 0)),
]


def test_what_is_asked_for_is_found_at_every_level(content, lead):
    dated = Instance.objects.get(series__study__number=2)
    dated.header |= {
        "00080020": {"vr": "DA", "Value": ["20200615"]},
        "00080030": {"vr": "TM", "Value": ["113000.5"]},
    }
    dated.save()
    levels = ("studies", "series", "instances")
    for parameters, counts in MATCHES:
        found_ = tuple(len(found(lead, content, level, **parameters)) for level in levels)
        assert found_ == counts, parameters


def test_lists_of_uids_name_what_is_wanted(content, lead):
    uids = list(Instance.objects.values_list("sop_instance_uid", flat=True))
    assert len(found(lead, content, "instances", SOPInstanceUID=",".join(uids[:2]))) == 2
    assert len(found(lead, content, "instances", SOPInstanceUID="\\".join(uids[:3]))) == 3
    studies = Study.objects.values_list("study_uid", flat=True)
    assert len(found(lead, content, "studies", StudyInstanceUID=",".join(studies))) == 2
    assert len(found(lead, content, "studies", **{"0020000d": studies[0]})) == 1
    series = Series.objects.get(number=7)
    assert len(found(lead, content, "series", SeriesInstanceUID=series.series_uid)) == 1


def test_what_headers_have_is_told_when_it_is_asked_for(content, lead):
    plain, asked = (
        found(lead, content, "instances", Modality="CT", **more)
        for more in ({}, {"includefield": ["PixelSpacing,00180015", "ImagePositionPatient"]})
    )
    assert not {"00280030", "00180015", "00200032"} & plain[0].keys()
    assert asked[0]["00280030"] == {"vr": "DS", "Value": [0.5, 0.75]}
    assert {"00180015", "00200032"} <= asked[0].keys()
    whole = found(lead, content, "instances", Modality="CT", includefield="all")
    header = Instance.objects.get(sop_instance_uid=whole[0]["00080018"]["Value"][0]).header
    assert {tag: whole[0][tag] for tag in header.keys() - {"00280008"}} == header
    assert whole[0]["00100020"]["Value"][0].startswith("S-")


def test_pages_follow_each_other_and_say_what_remains(content, lead):
    address = f"/dicomweb/{content.id}/instances"
    pages = [lead.get(address, {"limit": 4, "offset": offset}) for offset in (0, 4)]
    uids = [uid for page in pages for uid in values(page.json(), "00080018")]
    assert sorted(uids) == sorted(Instance.objects.values_list("sop_instance_uid", flat=True))
    said = "There are 2 additional results that can be requested"
    assert pages[0]["Warning"] == f'299 Delineate "{said}"'
    assert "Warning" not in pages[1]
    assert lead.get(address, {"offset": 400}).json() == []


def test_what_is_not_understood_is_left_out_and_said(content, lead):
    parameters = {
        "Nonsense": "1",
        "0040A730": "2",  # a sequence
        "includefield": 'Modality,What"ever',
        "fuzzymatching": "true",
    }
    response = lead.get(f"/dicomweb/{content.id}/studies", parameters)
    assert len(response.json()) == 2
    assert "fuzzymatching parameter is not supported" in response["Warning"]
    assert "left out: Nonsense 0040A730" in response["Warning"]


def test_values_that_cannot_be_read_are_refused(project, lead):
    for parameters in (
        {"limit": "many"},
        {"offset": "-1"},
        {"limit": "9" * 10},
        {"StudyDate": "yesterday"},
        {"StudyDate": "-"},
        {"SeriesNumber": "four"},
        {"SeriesNumber": "nan"},
        {"PatientID": "a\0b"},
        {"PatientID": "*" * 2000 + "a"},
    ):
        for level in ("studies", "series", "instances"):
            response = lead.get(f"/dicomweb/{project.id}/{level}", parameters)
            assert response.status_code == 400, parameters
            assert response.json()["error"]["code"] == "malformed"


def test_answers_are_json_only(content, lead):
    address = f"/dicomweb/{content.id}/studies"
    xml = 'multipart/related; type="application/dicom+xml"'
    assert lead.get(address, HTTP_ACCEPT=xml).status_code == 406
    assert lead.get(f"{address}?accept=application/json", HTTP_ACCEPT=xml).status_code == 200


def test_an_instance_in_several_volumes_is_found_once(project, lead):
    frames = np.zeros((2, 8, 10), np.uint8)
    study = new_study(project)
    header = json.loads(json.dumps(image(pixels=frames, z=None).to_json_dict()))
    for volume in (1, 2):
        series = Series.objects.create(
            study=study, series_uid="2.25.1", volume=volume, modality="US", rows=8, columns=10
        )
        instance = Instance.objects.create(
            series=series,
            sop_instance_uid="2.25.2",
            sop_class_uid=MR,
            number_of_frames=2,
            header=header,
        )
        Slice.objects.create(
            series=series, instance=instance, index=0, frame_number=volume, pixels_key=f"k{volume}"
        )
    (of_study,) = found(lead, project, "studies")
    assert (of_study["00201206"]["Value"], of_study["00201208"]["Value"]) == ([1], [1])
    (of_series,) = found(lead, project, "series")
    assert of_series["00201209"]["Value"] == [1]
    (of_instance,) = found(lead, project, "instances")
    assert of_instance["00280008"]["Value"] == [2]


def test_a_search_costs_as_many_queries_for_much_as_for_little(
    content, lead, django_assert_num_queries
):
    for level in ("studies", "series", "instances"):
        # Session, user, project; which rows, what is told of them; and how many remain. Of series
        # and instances, whether references follow.
        more = level != "studies"
        for limit, queries in ((100, 5), (1, 6)):
            with django_assert_num_queries(queries + more):
                lead.get(f"/dicomweb/{content.id}/{level}", {"limit": limit})
