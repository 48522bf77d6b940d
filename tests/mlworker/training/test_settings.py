from __future__ import annotations

import pytest

from mlworker.training.settings import Settings, SettingsError, read_settings


def test_the_defaults_are_the_published_procedure():
    settings = Settings()

    assert (settings.images, settings.masks, settings.corrections) == (2, 5, 8)
    assert settings.points == (1, 3, 5, 9)
    assert (settings.trainable, settings.precision) == ("adapters", "float32")
    assert (settings.epochs, settings.learning_rate, settings.warm_up) == (12, 1e-4, 0)
    assert not settings.augment
    assert not settings.balance


@pytest.mark.parametrize(
    ("epoch", "share"), [(0, 1), (6, 1), (7, 0.5), (9, 0.5), (10, 0.25), (11, 0.25)]
)
def test_the_rate_is_halved_after_the_seventh_and_the_tenth_epoch(epoch, share):
    assert Settings().rate(epoch=epoch, step=1000) == pytest.approx(1e-4 * share)


def test_the_rate_rises_while_it_warms_up():
    settings = Settings(warm_up=4)

    rates = [settings.rate(epoch=0, step=step) for step in range(6)]

    assert rates == pytest.approx([0.25e-4, 0.5e-4, 0.75e-4, 1e-4, 1e-4, 1e-4])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"learning_rat": 1}', "learning_rat"),
        ('{"learning_rate": 0}', "learning_rate"),
        ('{"learning_rate": "NaN"}', "learning_rate"),
        ('{"points": [1, 0]}', "at least one point"),
        ('{"halved_after": [0]}', "counted from 1"),
        ('{"trainable": "all"}', "everything"),
        ("not json", "settings.json"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(tmp_path, text, named):
    path = tmp_path / "settings.json"
    path.write_text(text)

    with pytest.raises(SettingsError, match=named):
        read_settings(path)
