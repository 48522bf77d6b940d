"""A subjects.csv: which line speaks of which file, what is told of it, and what comes of it."""

from __future__ import annotations

import pytest
from django.core.files.base import ContentFile
from pydicom import Dataset

from delineate import storage
from delineate.projects.models import Project
from delineate.studies import deidentify, ingest, mapping, services
from delineate.studies.archive import Refused
from delineate.studies.mapping import Mapping, is_mapping
from delineate.studies.models import Study, Subject, Upload, WayIn
from tests.delineate.factories import browser_of, lead_of, new_project
from tests.delineate.studies.files import fates, image, send_and_ingest, written, zipped
from tests.delineate.studies.test_pictures import grey, saved
from tests.delineate.studies.test_volumes import nifti, values


def of(text: str | bytes, *, name: str = "subjects.csv") -> Mapping:
    return Mapping(text.encode() if isinstance(text, str) else text, name=name)


def code_of(act) -> str:
    with pytest.raises(Refused) as caught:
        act()
    assert caught.value.message.endswith(".")
    return caught.value.code


@pytest.mark.parametrize(
    ("line", "file", "speaks"),
    [
        ("a.png", "a.png", True),
        ("a.png", "b/a.png", False),
        ("b/a.png", "b/a.png", True),
        ("b\\a.png", "b/a.png", True),
        ("./a.png", "a.png", True),
        ("scan [1].png", "scan [1].png", True),
        ("scan [1]*.png", "scan [1] b.png", True),
        ("scan [1]*.png", "scan 1 b.png", False),
        ("*.png", "a.png", True),
        ("*.png", "b/a.png", False),
        ("**/*.png", "b/c/a.png", True),
        ("**/*.png", "a.png", True),
        ("b/**", "b/c/a.png", True),
        ("b/**/a.png", "b/a.png", True),
        ("b/**/a.png", "c/b/a.png", False),
        ("b/", "b/c/a.png", True),
        ("b", "b/a.png", False),
        ("anna?/", "anna1/x/a.png", True),
        ("a?.png", "a1.png", True),
        ("a?.png", "a12.png", False),
        ("Gr\u00f6\u00dfe.png", "Gro\u0308\u00dfe.png", True),  # a Mac's zip
    ],
)
def test_a_line_speaks_of_a_file(line, file, speaks):
    read = of(f"file,subject\n{line},Anna\n")
    assert read.subject_of(file) == ("Anna" if speaks else None)
    assert read.verdict().code == ("mapping" if speaks else "mapping_unmatched")


@pytest.mark.parametrize(
    "text",
    [
        "file,subject\na.png,Anna\n",
        "\ufefffile,subject\r\na.png,Anna\r\n",
        "file;subject\na.png;Anna\n",
        "FILE\tSubject\na.png\tAnna",
        'subject,note,file\n\n Anna ,"x, y", a.png \n',
        '"file","subject"\n"a.png","Anna"\n',
    ],
    ids=["plain", "bom", "semicolons", "tabs", "other order", "quotes"],
)
def test_it_is_read_as_spreadsheets_write_it(text):
    assert of(text).subject_of("a.png") == "Anna"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a.png,Anna\n",
        b"file,person\na.png,Anna\n",
        "file,subject\nä.png,Anna\n".encode("latin-1"),
        b'file,subject\n"a.png,Anna\n',
        b"file,subject\n" + b"a.png,Anna\n" * (mapping.MAX_LINES + 1),
        b"file,subject\n" + b" " * mapping.MAX_BYTES,
    ],
    ids=["empty", "no header", "other columns", "latin-1", "quotes", "lines", "size"],
)
def test_what_is_no_mapping_is_refused(data):
    assert code_of(lambda: of(data)) == "mapping_unreadable"


def test_rows_that_are_not_understood_and_rows_of_no_file_are_told_by_number():
    read = of("file,subject\na.png,Anna\n,Otto\nb.png\n\n../c.png,Otto\n/d.png,Otto\nz.png,Otto\n")
    assert read.subject_of("a.png") == "Anna"
    fate, code, message = read.verdict()
    assert (fate, code) == ("refused", "mapping_malformed")
    assert message == (
        "subjects.csv says who is on 1 file. Not understood: rows 3, 4, 6, 7. "
        "Of no file in the upload: row 8."
    )


def test_rows_of_no_file_are_no_fault():
    read = of("file,subject\na.png,Anna\nb.png,Otto\n")
    read.subject_of("a.png")
    assert read.verdict()[:2] == ("skipped", "mapping_unmatched")


def test_a_files_own_line_goes_before_patterns():
    read = of("file,subject\n*.png,Otto\na.png,Anna\n")
    assert (read.subject_of("a.png"), read.subject_of("b.png")) == ("Anna", "Otto")
    assert read.verdict().code == "mapping"


@pytest.mark.parametrize(
    "lines", ["a.png,Anna\na.png,Otto", "*.png,Anna\na*,Otto"], ids=["files", "patterns"]
)
def test_lines_that_disagree_are_refused_by_their_rows(lines):
    read = of(f"file,subject\n{lines}\n")
    with pytest.raises(Refused, match="rows 2, 3") as caught:
        read.subject_of("a.png")
    assert caught.value.code == "mapping_conflict"
    assert "Anna" not in caught.value.message


def test_it_speaks_of_its_own_folder_only():
    read = of("file,subject\na.png,Anna\n", name="set/Subjects.CSV")
    assert read.subject_of("set/a.png") == "Anna"
    assert read.subject_of("a.png") is None
    assert read.subject_of("settled/a.png") is None
    assert read.subject_of("") is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [("subjects.csv", True), ("a/SUBJECTS.csv", True), ("a/subjects.csv.png", False), ("", False)],
)
def test_a_mapping_is_known_by_its_name(name, expected):
    assert is_mapping(name) is expected


def test_too_many_patterns_are_not_understood():
    lines = "".join(f"{n}*,Anna\n" for n in range(mapping.MAX_PATTERNS + 1))
    read = of(f"file,subject\n{lines}")
    assert read.subject_of("0") == "Anna"
    assert f"Not understood: row {mapping.MAX_PATTERNS + 2}." in read.verdict().message


def test_no_pattern_goes_back_and_forth_for_ever():
    """One regular expression made of this would not come to its end."""
    hostile = of(f"file,subject\n{'**/' * 200}{'*a' * 200}b,Anna\n")
    assert hostile.subject_of("/".join(["a" * 100] * 200)) is None


@pytest.fixture
def project() -> Project:
    """A project of one lead."""
    return new_project()


@pytest.fixture
def lead(project):
    """The lead's browser."""
    return browser_of(lead_of(project))


def named(project: Project, subject: str) -> str:
    """The pseudonym that a name in a mapping becomes."""
    key = bytes(project.pseudonym_key)
    return deidentify.pseudonym(deidentify.identity_named(subject), key=key)


def subjects(project: Project) -> dict[str, int]:
    """Studies by pseudonym."""
    found = Subject.objects.filter(project=project)
    return {subject.pseudonym: subject.studies.count() for subject in found}


MAPPED = ("skipped", "mapping")
HELD = ("stored", "in_quarantine")  # as pictures are


@pytest.mark.django_db
def test_images_without_identity_get_their_subject_from_the_zip(project, lead):
    upload = send_and_ingest(
        lead,
        project,
        zipped(
            {
                "set/one.png": saved(grey(seed=1)),
                "set/two.nii": nifti(values()),
                "set/deep/three.dcm": image(patient=None),
                "set/four.png": saved(grey(seed=4)),
                "set/subjects.csv": b"file,subject\n*.png,Anna\ntwo.nii,Otto\ndeep/,Anna\n",
            }
        ),
    )
    assert fates(upload) == [HELD, *[("stored", "")] * 2, HELD, MAPPED]
    assert upload.report[4]["message"] == "subjects.csv says who is on 4 files."
    assert subjects(project) == {named(project, "Anna"): 3, named(project, "Otto"): 1}


@pytest.mark.django_db
def test_the_mapping_may_lie_beside_a_zip_or_within_one(project, lead):
    inner = zipped({"x.png": saved(grey(seed=1))})
    beside = services.receive_upload(
        project,
        files=[
            ContentFile(zipped({"set/in.zip": inner}), name="scans.zip"),
            ContentFile(saved(grey(seed=2)), name="y.png"),
            ContentFile(b"file,subject\nset/x.png,Anna\ny.png,Otto\n", name="Subjects.csv"),
        ],
        by=lead_of(project),
    )
    ingest.ingest(beside.id)
    beside.refresh_from_db()
    assert fates(beside) == [HELD, HELD, MAPPED]
    assert subjects(project) == {named(project, "Anna"): 1, named(project, "Otto"): 1}
    assert storage.list_keys(beside.blob_prefix) == []


@pytest.mark.django_db
def test_files_that_come_one_by_one_may_have_names(project):
    upload = services.begin_upload(project, by=lead_of(project), way_in=WayIn.BROWSER)
    services.add_blob(upload, iter([saved(grey())]), name="set/a.png")
    services.add_blob(upload, iter([b"file,subject\na.png,Anna\n"]), name="set/subjects.csv")
    services.end_upload(upload)
    ingest.ingest(upload.id)
    upload.refresh_from_db()
    assert fates(upload) == [HELD, MAPPED]
    assert subjects(project) == {named(project, "Anna"): 1}


@pytest.mark.django_db
def test_names_of_files_are_kept_only_for_a_mapping(project):
    upload = services.receive_upload(
        project, files=[ContentFile(b"x", name="anna.png")], by=lead_of(project)
    )
    assert storage.list_keys(upload.blob_prefix) == [upload.blob_key(0)]


@pytest.mark.django_db
def test_the_same_name_is_the_same_subject_however_it_comes(project, lead):
    csv = b"file,subject\na.png,PAT-1\n"
    files: dict[str, Dataset | bytes] = {
        "a.png": saved(grey()),
        "b.dcm": image(patient="PAT-1"),
        "subjects.csv": csv,
    }
    send_and_ingest(lead, project, zipped(files))
    assert subjects(project) == {named(project, "PAT-1"): 2}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("patient", "expected"),
    [
        ("PAT-1", ("refused", "mapping_conflict")),
        ("Anna", ("stored", "")),
        ("ANONYMOUS", ("stored", "")),
        (None, ("stored", "")),
    ],
)
def test_what_a_file_says_of_its_patient_is_not_overruled(project, lead, patient, expected):
    files: dict[str, Dataset | bytes] = {
        "a.dcm": image(patient=patient),
        "subjects.csv": b"file,subject\na.dcm,Anna\n",
    }
    upload = send_and_ingest(lead, project, zipped(files))
    assert fates(upload) == [expected, MAPPED]
    stored = expected[0] == "stored"
    assert subjects(project) == ({named(project, "Anna"): 1} if stored else {})


@pytest.mark.django_db
@pytest.mark.parametrize("said", ["PAT-1", "DOE^ANNA"])
def test_a_file_that_says_the_same_in_more_words_keeps_its_own(project, lead, said):
    files: dict[str, Dataset | bytes] = {
        "a.dcm": image(patient="PAT-1", IssuerOfPatientID="clinic", PatientName="DOE^ANNA"),
        "subjects.csv": f"file,subject\na.dcm,{said}\n".encode(),
    }
    upload = send_and_ingest(lead, project, zipped(files))
    assert fates(upload) == [("stored", ""), MAPPED]
    assert named(project, "PAT-1") not in subjects(project)


@pytest.mark.django_db
def test_mappings_that_disagree_are_refused_for_the_file(project, lead):
    files: dict[str, Dataset | bytes] = {
        "set/a.png": saved(grey(seed=1)),
        "set/subjects.csv": b"file,subject\na.png,Anna\n",
        "subjects.csv": b"file,subject\nset/a.png,Otto\n",
    }
    upload = send_and_ingest(lead, project, zipped(files))
    assert fates(upload)[0] == ("refused", "mapping_conflict")
    assert not Study.objects.exists()


@pytest.mark.django_db
def test_a_mapping_that_cannot_be_used_holds_nothing_up(project, lead):
    files: dict[str, Dataset | bytes] = {"a.png": saved(grey()), "subjects.csv": b"who,what\n1,2\n"}
    upload = send_and_ingest(lead, project, zipped(files))
    assert fates(upload) == [HELD, ("refused", "mapping_unreadable")]
    assert Upload.objects.get().state == "done"


@pytest.mark.django_db
def test_files_of_one_study_with_two_subjects_are_refused(project, lead):
    files: dict[str, Dataset | bytes] = {
        "a.dcm": image(patient=None, z=0.0),
        "b.dcm": image(patient=None, z=1.0),
        "subjects.csv": b"file,subject\na.dcm,Anna\nb.dcm,Otto\n",
    }
    upload = send_and_ingest(lead, project, zipped(files))
    assert fates(upload) == [("refused", "study_mixed_patients")] * 2 + [MAPPED]


@pytest.mark.django_db
def test_a_patient_that_comes_twice_is_the_same_subject(project, lead):
    for seed in (1, 2):
        csv = b"file,subject\na.png,Anna\n"
        files: dict[str, Dataset | bytes] = {"a.png": saved(grey(seed=seed)), "subjects.csv": csv}
        send_and_ingest(lead, project, zipped(files))
    assert subjects(project) == {named(project, "Anna"): 2}


def test_a_written_file_is_no_mapping():
    """An image that somebody calls subjects.csv is told as what it is."""
    assert code_of(lambda: of(written(image()))) == "mapping_unreadable"
