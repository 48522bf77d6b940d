"""From an upload into quarantine and out of it: let go, or with boxes blacked out for good."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np
import pytest
from django.http import HttpResponse
from django.test import Client
from PIL import Image

from delineate import jobs, storage
from delineate.annotation.jobs import open_missing
from delineate.audit.models import Event
from delineate.projects.models import Project, Role
from delineate.studies import black_out, lossless, quarantine
from delineate.studies.black_boxes import BlackBox
from delineate.studies.models import BlackOut, Encoding, Series, Slice, Study
from delineate.studies.selectors import header_of
from mlworker.contract.artifacts import array_digest, unpack_array
from tests.delineate.factories import (
    ULTRASOUND_MULTIFRAME,
    browser_of,
    hold,
    lead_of,
    new_member,
    new_model,
    new_project,
    new_series,
    new_study,
)
from tests.delineate.studies.files import fates, image, send_and_ingest, written, zipped

pytestmark = pytest.mark.django_db

FRAMES, ROWS, COLUMNS = 4, 20, 30
BOX = {"x0": 2, "y0": 1, "x1": 12, "y1": 5, "first": 0, "last": FRAMES - 1}


def clip(*, seed: int = 0, **more: Any) -> bytes:
    """An ultrasound clip, bright everywhere, as a DICOM file."""
    pixels = np.random.default_rng(seed).integers(60, 255, (FRAMES, ROWS, COLUMNS), dtype=np.uint8)
    attributes = {
        "SOPClassUID": ULTRASOUND_MULTIFRAME,
        "Modality": "US",
        "RescaleSlope": None,
        "RescaleIntercept": None,
        "WindowCenter": 127.5,
        "WindowWidth": 255,
    }
    return written(image(pixels=pixels, z=None, seed=seed, sop="1.2.9", **(attributes | more)))


@dataclass
class Desk:
    """A lead's browser at a project."""

    project: Project
    lead: Client

    def held(self) -> list[dict[str, Any]]:
        """What the quarantine page lists."""
        listed: list[dict[str, Any]] = self.lead.get(
            f"/api/projects/{self.project.id}/quarantine"
        ).json()
        return listed

    def release(self, series: Series, *, slices: int | None = None) -> Any:
        """Let a series go, as it is now or as it was with so many slices."""
        seen = {"slices": series.slices.count() if slices is None else slices}
        return self._post(f"/api/series/{series.id}/release", seen)

    def release_several(self, seen: dict[Series, int]) -> Any:
        """Let these go, as they were with so many slices."""
        return self._post(
            f"/api/projects/{self.project.id}/quarantine/release",
            {"series": [{"series_id": str(each.id), "slices": n} for each, n in seen.items()]},
        )

    def black_out(self, series: Series, *boxes: dict[str, int]) -> Any:
        """Ask for boxes to be blacked out."""
        asked = {"boxes": list(boxes), "slices": series.slices.count()}
        return self._post(f"/api/series/{series.id}/black-out", asked)

    def _post(self, path: str, body: object) -> Any:
        return self.lead.post(path, json.dumps(body), content_type="application/json")


@pytest.fixture
def desk() -> Desk:
    """A project without studies."""
    project = new_project()
    return Desk(project, browser_of(lead_of(project)))


@pytest.fixture
def held(desk) -> Series:
    """An ultrasound clip that has been uploaded, and a model."""
    new_model()
    send_and_ingest(desk.lead, desk.project, clip())
    return Series.objects.get()


def code_of(response: HttpResponse) -> str:
    return str(json.loads(response.content)["error"]["code"])


def stored(series: Series) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    return [unpack_array(storage.get(each.pixels_key)) for each in series.slices.order_by("index")]


def keys(series: Series) -> list[str]:
    return list(series.slices.order_by("index").values_list("pixels_key", flat=True))


def test_an_upload_says_what_it_holds_back(desk):
    upload = send_and_ingest(desk.lead, desk.project, zipped([clip(), image()]))
    assert fates(upload) == [("stored", "in_quarantine"), ("stored", "")]
    told = desk.lead.get(f"/api/uploads/{upload.id}").json()
    assert (told["held"], told["fates"]) == (1, {"stored": 2})
    assert told["report"][0]["message"].endswith(".")
    (study,) = desk.lead.get(f"/api/projects/{desk.project.id}/studies").json()
    told_of = {each["modality"]: each["quarantine"] for each in study["series"]}
    assert told_of == {"US": "held", "CT": "none"}


def test_a_volume_is_not_held_though_it_becomes_a_secondary_capture(desk):
    volume = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4))
    upload = send_and_ingest(desk.lead, desk.project, volume.to_bytes())
    assert fates(upload) == [("stored", "")]
    assert Series.objects.get().quarantine == "none"


def test_the_page_lists_what_is_held_and_why(desk, held):
    (listed,) = desk.held()
    assert (listed["id"], listed["study_number"], listed["modality"]) == (str(held.id), 1, "US")
    assert (listed["slices"], listed["rows"], listed["columns"]) == (FRAMES, ROWS, COLUMNS)
    assert listed["reason"]["code"] == "ultrasound"
    assert listed["reason"]["sentence"].endswith(".")
    assert listed["black_out"] is None


def test_a_released_series_is_everybodys_and_nothing_of_it_changed(desk, held):
    before = stored(held)
    assert not Encoding.objects.exists()
    assert desk.release(held).status_code == 204

    held.refresh_from_db()
    assert (held.quarantine, held.released_by) == ("released", lead_of(desk.project))
    assert all((a == b).all() for a, b in zip(before, stored(held), strict=True))
    assert Encoding.objects.count() == FRAMES
    assert open_missing() == 1
    assert desk.held() == []
    event = Event.objects.get(action="series_released")
    assert event.actor == lead_of(desk.project).username
    assert (event.subject, event.data) == (f"series {held.id}", {"reason": "ultrasound"})
    again = desk.release(held)
    assert (again.status_code, code_of(again)) == (409, "not_held")


def test_only_what_was_looked_at_is_released_together(desk):
    series = [hold(new_series(new_study(desk.project))) for _ in range(5)]
    released, busy, let_go, grown, came_later = series
    desk.release(let_go)
    desk.black_out(busy, BOX | {"last": 2, "x1": 4, "y1": 3})

    answer = desk.release_several({released: 3, busy: 3, let_go: 3, grown: 2})

    assert answer.json() == {"released": 1}
    states = dict(Series.objects.values_list("id", "quarantine"))
    expected = ["released", "held", "released", "held", "held"]
    assert [states[each.id] for each in series] == expected
    assert Event.objects.filter(action="series_released").count() == 2
    assert came_later.id in Series.objects.filter(quarantine="held").values_list("id", flat=True)


def test_a_series_elsewhere_is_not_released_along(desk):
    ours = hold(new_series(new_study(desk.project)))
    other = hold(new_series(new_study(new_project(name="Kidneys"))))
    answer = desk.release_several({ours: 3, other: 3})
    assert (answer.status_code, code_of(answer)) == (404, "not_found")
    assert set(Series.objects.values_list("quarantine", flat=True)) == {"held"}


def test_boxes_are_black_for_good_and_the_old_bytes_are_gone(desk, held):
    before, old_keys = stored(held), keys(held)
    answer = desk.black_out(held, BOX, BOX | {"x0": 20, "x1": 30, "first": 1, "last": 1})
    assert answer.status_code == 202
    assert Series.objects.get().quarantine == "held"

    black_out.run(BlackOut.objects.get().id)

    for index, (old, new) in enumerate(zip(before, stored(held), strict=True)):
        expected = old.copy()
        expected[1:5, 2:12] = 0
        if index == 1:
            expected[1:5, 20:30] = 0
        assert (new == expected).all()
    for slice_ in held.slices.all():
        assert slice_.pixels_digest == array_digest(unpack_array(storage.get(slice_.pixels_key)))
    assert not set(keys(held)) & set(old_keys)
    assert not any(storage.exists(key) for key in old_keys)
    held.refresh_from_db()
    assert (held.quarantine, held.released_by) == ("blacked_out", lead_of(desk.project))
    assert Encoding.objects.count() == FRAMES
    assert desk.held() == []
    event = Event.objects.get(action="series_blacked_out")
    assert (event.actor, event.data) == (
        lead_of(desk.project).username,
        {
            "reason": "ultrasound",
            "boxes": ["2 1 12 5 on 1-4", "20 1 30 5 on 2-2"],
            "slices": FRAMES,
        },
    )


def test_the_header_says_that_its_pixels_were_cleaned(desk, held):
    desk.black_out(held, BOX)
    black_out.run(BlackOut.objects.get().id)
    header = header_of(held.instances.get())
    assert header.BurnedInAnnotation == "NO"
    codes = [code.CodeValue for code in header.DeidentificationMethodCodeSequence]
    assert codes.count("113101") == 1
    # What was done to it on its way in stays said.
    assert "113100" in codes


def test_one_slice_is_blacked_out_and_the_others_keep_their_objects(desk, held):
    before = keys(held)
    desk.black_out(held, BOX | {"first": 2, "last": 2})
    black_out.run(BlackOut.objects.get().id)
    assert [a == b for a, b in zip(before, keys(held), strict=True)] == [True, True, False, True]
    assert [(pixels == 0).any() for pixels in stored(held)] == [False, False, True, False]


def test_colour_is_blacked_out(desk):
    picture = Image.fromarray(np.full((ROWS, COLUMNS, 3), (200, 100, 50), dtype=np.uint8))
    file = io.BytesIO()
    picture.save(file, "PNG")
    send_and_ingest(desk.lead, desk.project, file.getvalue())
    series = Series.objects.get()
    desk.black_out(series, BOX | {"last": 0})
    black_out.run(BlackOut.objects.get().id)
    (pixels,) = stored(series)
    assert pixels[1:5, 2:12].max() == 0
    assert pixels[5:].min() == 50


@pytest.mark.parametrize("inverted", [False, True])
def test_grey_is_black_on_the_screen_however_it_is_stored(desk, inverted):
    photometric = "MONOCHROME1" if inverted else "MONOCHROME2"
    send_and_ingest(desk.lead, desk.project, clip(photometric=photometric))
    series = Series.objects.get()
    desk.black_out(series, BOX)
    black_out.run(BlackOut.objects.get().id)
    assert stored(series)[0][1, 2] == (255 if inverted else 0)


def test_the_same_file_is_known_when_it_comes_again(desk, held):
    desk.black_out(held, BOX)
    black_out.run(BlackOut.objects.get().id)
    again = send_and_ingest(desk.lead, desk.project, clip())
    assert fates(again) == [("duplicate", "duplicate")]
    other = send_and_ingest(desk.lead, desk.project, clip(seed=1))
    assert fates(other) == [("refused", "uid_conflict")]
    assert stored(held)[0][1, 2] == 0


@pytest.mark.parametrize(
    ("boxes", "code"),
    [
        ([], "no_boxes"),
        ([BOX] * (quarantine.BOXES_AT_MOST + 1), "too_many_boxes"),
        ([BOX, BOX | {"x1": COLUMNS + 1}], "box_outside"),
        ([BOX | {"y0": 5}], "box_outside"),
        ([BOX | {"last": FRAMES}], "box_outside"),
    ],
    ids=["none", "too many", "beyond", "empty", "no such slice"],
)
def test_boxes_that_make_no_sense_are_refused(desk, held, boxes, code):
    answer = desk.black_out(held, *boxes)
    assert (answer.status_code, code_of(answer)) == (422, code)
    assert not BlackOut.objects.exists()


def test_while_boxes_are_blacked_out_nothing_else_is_done(desk, held):
    desk.black_out(held, BOX)
    again = desk.black_out(held, BOX)
    release = desk.release(held)
    for answer in (again, release):
        assert (answer.status_code, code_of(answer)) == (409, "being_blacked_out")
    (listed,) = desk.held()
    assert listed["black_out"]["state"] == "pending"
    assert (listed["black_out"]["slices_done"], listed["black_out"]["slices_total"]) == (0, FRAMES)


class Killed(BaseException):
    """The process is gone; nothing catches it."""


@pytest.mark.parametrize("step", ["put", "delete"])
@pytest.mark.parametrize("survived", [0, 2])
def test_a_black_out_that_was_killed_is_finished_by_the_next_attempt(
    desk, held, monkeypatch, step, survived
):
    before, old_keys = stored(held), keys(held)
    desk.black_out(held, BOX)
    job = BlackOut.objects.get()
    real = getattr(storage, step)
    done: list[str] = []

    def dies(key: str, *data: bytes) -> None:
        if len(done) == survived:
            raise Killed
        done.append(key)
        real(key, *data)

    with monkeypatch.context() as patched:
        patched.setattr(storage, step, dies)
        with pytest.raises(Killed):
            black_out.run(job.id)
    assert Series.objects.get().quarantine == "held"
    BlackOut.objects.update(heartbeat_at=job.created_at - 2 * jobs.SILENT_AFTER)

    black_out.run(job.id)

    assert Series.objects.get().quarantine == "blacked_out"
    assert not any(storage.exists(key) for key in old_keys)
    for old, new in zip(before, stored(held), strict=True):
        assert (new[1:5, 2:12] == 0).all()
        assert (new[5:] == old[5:]).all()
    assert Event.objects.filter(action="series_blacked_out").count() == 1
    black_out.run(job.id)
    assert BlackOut.objects.get().state == "done"


def test_what_shows_a_name_goes_also_when_the_job_is_given_up(desk, held, monkeypatch):
    old_keys = keys(held)
    desk.black_out(held, BOX)
    job = BlackOut.objects.get()

    def dies(_key: str) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(storage, "delete", dies)
        with pytest.raises(Killed):
            black_out.run(job.id)
    assert all(storage.exists(key) for key in old_keys)
    BlackOut.objects.update(
        attempt=jobs.MAX_ATTEMPTS, heartbeat_at=job.created_at - 2 * jobs.SILENT_AFTER
    )
    black_out.run(job.id)
    assert not any(storage.exists(key) for key in old_keys)
    assert Series.objects.get().quarantine == "held"
    (listed,) = desk.held()
    assert listed["black_out"]["state"] == "failed"
    assert listed["black_out"]["error_message"].endswith(".")
    # The boxes can be asked for again.
    assert desk.black_out(held, BOX).status_code == 202
    black_out.run(BlackOut.objects.get(state="pending").id)
    assert Series.objects.get().quarantine == "blacked_out"


def test_a_missing_object_fails_the_job_and_leaves_nothing_new(desk, held):
    last = held.slices.get(index=FRAMES - 1)
    storage.delete(last.pixels_key)
    desk.black_out(held, BOX)
    job = BlackOut.objects.get()
    before = set(keys(held))
    black_out.run(job.id)
    job.refresh_from_db()
    assert (job.state, job.error_code) == ("failed", "object_missing")
    assert Series.objects.get().quarantine == "held"
    assert set(keys(held)) == before
    assert _objects_of(held.study) == before - {last.pixels_key}


@pytest.mark.django_db(transaction=True)  # a study's objects go when its rows are gone for good
def test_a_study_that_is_deleted_meanwhile_leaves_nothing(desk, held, monkeypatch):
    desk.black_out(held, BOX)
    job = BlackOut.objects.get()
    study, real = held.study, storage.put

    def deletes_first(key: str, data: bytes) -> None:
        if Study.objects.exists():
            assert desk.lead.delete(f"/api/studies/{study.id}").status_code == 204
        real(key, data)

    monkeypatch.setattr(storage, "put", deletes_first)
    black_out.run(job.id)
    assert _objects_of(study) == set()
    assert not Slice.objects.exists()


def test_embeddings_of_what_was_there_are_forgotten(desk):
    """Of a series that was held after it had been prepared."""
    new_model()
    send_and_ingest(desk.lead, desk.project, written(image()))
    series, made = Series.objects.get(), Encoding.objects.get()
    storage.put(made.embedding_key, b"an embedding")
    hold(series)
    desk.black_out(series, BOX | {"x1": 6, "y1": 3, "last": 0})
    black_out.run(BlackOut.objects.get().id)
    assert not storage.exists(made.embedding_key)
    assert Encoding.objects.get().embedding_key != made.embedding_key


def test_the_sweep_sends_a_black_out_again(desk, held, monkeypatch):
    from delineate.studies import tasks

    desk.black_out(held, BOX)
    job = BlackOut.objects.get()
    BlackOut.objects.update(heartbeat_at=job.created_at - 2 * jobs.SILENT_AFTER)
    sent: list[str] = []
    monkeypatch.setattr(tasks.black_out_task, "delay", sent.append)
    tasks.sweep_jobs_task()
    assert sent == [str(job.id)]


def test_a_preview_is_small_and_shows_the_slice(desk, held):
    answer = desk.lead.get(f"/api/series/{held.id}/preview?index=2&side=16")
    assert (answer["Content-Type"], answer["Cache-Control"]) == ("image/png", "private, no-store")
    assert Image.open(io.BytesIO(answer.content)).size == (16, 11)
    whole = desk.lead.get(f"/api/series/{held.id}/preview?index=2")
    assert _differ_most(whole, stored(held)[2]) <= 1  # the window's rounding
    brightest = desk.lead.get(f"/api/series/{held.id}/preview?brightest=true")
    assert _differ_most(brightest, np.max(stored(held), axis=0)) <= 1


def test_previews_that_cannot_be_made_are_refused(desk, held, monkeypatch):
    from delineate.studies import quarantine_api

    missing = desk.lead.get(f"/api/series/{held.id}/preview?index={FRAMES}")
    assert (missing.status_code, code_of(missing)) == (404, "not_found")
    monkeypatch.setattr(quarantine_api, "BRIGHTEST_OF_AT_MOST", FRAMES - 1)
    many = desk.lead.get(f"/api/series/{held.id}/preview?brightest=true")
    assert (many.status_code, code_of(many)) == (422, "too_many_slices")


def test_pixels_that_were_kept_compressed_are_gone_too(desk):
    send_and_ingest(desk.lead, desk.project, _large())
    series = Series.objects.get()
    before = series.slices.get()
    kept = lossless.jpeg_ls_of(before)
    assert kept is not None
    assert storage.get(lossless.key_of(before)) == kept
    desk.black_out(series, BOX | {"last": 0})
    black_out.run(BlackOut.objects.get().id)
    assert not storage.exists(lossless.key_of(before))


def test_a_frame_that_is_compressed_while_boxes_are_blacked_out_is_not_kept(desk, monkeypatch):
    send_and_ingest(desk.lead, desk.project, _large())
    series = Series.objects.get()
    before = series.slices.get()
    desk.black_out(series, BOX | {"last": 0})
    real = storage.put

    def after_the_black_out(key: str, data: bytes, **options: bool) -> None:
        if key.endswith(".jls"):
            with monkeypatch.context() as unpatched:
                unpatched.setattr(storage, "put", real)
                black_out.run(BlackOut.objects.get().id)
        real(key, data, **options)

    monkeypatch.setattr(storage, "put", after_the_black_out)
    assert lossless.jpeg_ls_of(before) is not None
    assert not storage.exists(lossless.key_of(before))


def test_of_a_study_in_part_held_the_rest_is_everybodys(desk):
    send_and_ingest(desk.lead, desk.project, zipped([clip(), image(series="1.2.3.2")]))
    study = Study.objects.get()
    root = f"/dicomweb/{desk.project.id}/studies/{study.study_uid}"
    annotator = browser_of(new_member(desk.project, Role.ANNOTATOR))
    for browser, expected in ((annotator, {"CT"}), (desk.lead, {"CT", "US"})):
        for address in (f"{root}/metadata", f"{root}/series", f"{root}/instances"):
            told = json.loads(b"".join(browser.get(address)))
            assert {each["00080060"]["Value"][0] for each in told} == expected, address
    files = b"".join(annotator.get(root))
    assert study.series.get(modality="CT").series_uid.encode() in files
    assert study.series.get(modality="US").series_uid.encode() not in files


def test_a_held_frame_stays_in_no_browser_and_a_released_one_does(desk, held):
    study, instance = held.study, held.instances.get()
    url = (
        f"/dicomweb/{desk.project.id}/studies/{study.study_uid}/series/{held.series_uid}"
        f"/instances/{instance.sop_instance_uid}/frames/1"
    )
    assert desk.lead.get(url)["Cache-Control"] == "private, no-store"
    desk.release(held)
    assert "immutable" in desk.lead.get(url)["Cache-Control"]


def test_of_the_volumes_of_one_dicom_series_each_is_held_by_itself(desk):
    large = image(pixels=np.zeros((8, 10), np.int16), z=0.0, BurnedInAnnotation="YES")
    small = image(pixels=np.zeros((6, 7), np.int16), z=5.0)
    send_and_ingest(desk.lead, desk.project, zipped([large, small]))
    assert {each.rows: each.quarantine for each in Series.objects.all()} == {8: "held", 6: "none"}


def _large() -> bytes:
    """One grey frame that JPEG-LS can hold."""
    pixels = np.random.default_rng(5).integers(0, 255, (64, 64), dtype=np.uint8)
    return written(image(pixels=pixels, z=None, Modality="US"))


def _still(number: int) -> bytes:
    """One image of an ultrasound series that comes image by image."""
    return written(image(z=None, seed=number, Modality="US", InstanceNumber=number))


def test_a_series_that_grows_is_looked_at_again(desk):
    send_and_ingest(desk.lead, desk.project, _still(1))
    series = Series.objects.get()
    send_and_ingest(desk.lead, desk.project, _still(2))
    early = desk.release(series, slices=1)
    assert (early.status_code, code_of(early)) == (409, "series_grew")
    assert desk.release(series).status_code == 204

    send_and_ingest(desk.lead, desk.project, _still(3))

    series.refresh_from_db()
    assert (series.quarantine, series.slices.count()) == ("held", 3)
    assert (series.released_by, series.held_because) == (None, "ultrasound")


@pytest.mark.parametrize("step", ["put", "delete"])
def test_what_joins_while_boxes_are_blacked_out_is_looked_at(desk, monkeypatch, step):
    send_and_ingest(desk.lead, desk.project, _still(1))
    series = Series.objects.get()
    desk.black_out(series, BOX | {"x1": 6, "y1": 3, "last": 0})
    real = getattr(storage, step)
    joined: list[str] = []

    def joins_first(key: str, *data: bytes) -> None:
        if not joined:
            joined.append(key)
            send_and_ingest(desk.lead, desk.project, _still(0))
        real(key, *data)

    with monkeypatch.context() as patched:
        patched.setattr(storage, step, joins_first)
        black_out.run(BlackOut.objects.get().id)

    job = BlackOut.objects.get()
    assert (job.state, job.error_code) == ("failed", "series_grew")
    assert Series.objects.get().quarantine == "held"
    assert series.slices.count() == 2
    assert _objects_of(series.study) == set(keys(series))


def test_a_box_from_a_row_is_the_box_that_was_asked_for(desk, held):
    desk.black_out(held, BOX)
    (kept,) = BlackOut.objects.get().boxes
    assert BlackBox.model_validate(kept) == BlackBox(**BOX)


def _differ_most(answer: HttpResponse, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> int:
    seen = np.asarray(Image.open(io.BytesIO(answer.content)))
    return int(np.abs(seen.astype(int) - pixels.astype(int)).max())


def _objects_of(study: Study) -> set[str]:
    filesystem, root = storage._locate(f"studies/{study.id}")
    if not filesystem.exists(root):
        return set()
    return {f"studies/{study.id}/{path.rsplit('/', 1)[1]}" for path in filesystem.find(root)}
