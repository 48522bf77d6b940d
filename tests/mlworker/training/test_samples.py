"""Lists of samples: what they say, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlworker.training.samples import (
    DataError,
    Sample,
    by_image,
    read_image2label,
    read_label2image,
    read_samples,
    refuse_shared_subjects,
    write_samples,
)


def test_labels_come_from_the_published_file_names(tmp_path) -> None:
    path = tmp_path / "label2image_test.json"
    path.write_text(
        json.dumps(
            {
                "masks/amos_0004_75_inferior_vena_cava_000.png": "images/amos_0004_75.png",
                "masks/other.png": "images/amos_0004_75.png",
            }
        )
    )

    first, second = read_label2image(path, root=tmp_path)

    assert first.label == "inferior_vena_cava"
    assert first.image == tmp_path / "images/amos_0004_75.png"
    assert second.label == "other"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "not a JSON object"),
        ("{", "cannot be read"),
        ("{}", "lists nothing"),
        ('{"image": "mask"}', "are not a list"),
        ('{"image": [1]}', "are not a list"),
    ],
)
def test_training_lists_that_are_refused(tmp_path, content, message) -> None:
    path = tmp_path / "list.json"
    path.write_text(content)

    with pytest.raises(DataError, match=message):
        read_image2label(path, root=tmp_path)


def test_a_test_list_with_a_list_of_images_is_refused(tmp_path) -> None:
    path = tmp_path / "list.json"
    path.write_text('{"mask": ["image"]}')

    with pytest.raises(DataError, match="is not a file name"):
        read_label2image(path, root=tmp_path)


def test_samples_are_written_and_read(tmp_path) -> None:
    samples = [
        Sample(tmp_path / "a.png", tmp_path / "m.png", "liver", "CT", "set", "patient"),
        Sample(tmp_path / "a.png", tmp_path / "n.png", "kidney"),
    ]

    write_samples(tmp_path / "samples.csv", samples)

    assert read_samples(tmp_path / "samples.csv") == samples
    assert list(by_image(samples).values()) == [samples]


@pytest.mark.parametrize(
    ("content", "message"), [("", "lists nothing"), ("a\n1\n", "lacks the col")]
)
def test_a_table_without_what_it_needs_is_refused(tmp_path, content, message) -> None:
    (tmp_path / "samples.csv").write_text(content)

    with pytest.raises(DataError, match=message):
        read_samples(tmp_path / "samples.csv")


def test_a_subject_on_both_sides_is_refused_and_unknown_ones_are_not() -> None:
    def sample(subject: str) -> Sample:
        return Sample(Path("i"), Path("m"), "x", subject=subject)

    refuse_shared_subjects([sample("a"), sample("unknown")], [sample("b"), sample("unknown")])
    with pytest.raises(DataError, match="1 subjects are in training and in validation: a"):
        refuse_shared_subjects([sample("a")], [sample("a"), sample("b")])
