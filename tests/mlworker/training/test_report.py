"""Reports: figures with their intervals, the files, and a page that needs nothing else."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mlworker.cli import main
from mlworker.model import sam_med2d
from mlworker.model.checkpoint import Metadata, pack, untrained
from mlworker.training.asking import PROTOCOLS
from mlworker.training.evaluate import Plan, Row, evaluate
from mlworker.training.metrics import Scores
from mlworker.training.page import page
from mlworker.training.pictured import PREDICTED, SIDE, TRUTH, picture
from mlworker.training.prompts import PromptFile
from mlworker.training.report import About, results_of, write_report
from mlworker.training.rivals import RIVALS
from mlworker.training.samples import read_label2image
from mlworker.training.summary import Mean, clicks, figures, summarise
from tests.mlworker.training.drawn import annotator, write_set


def row(dice: float, *, subject: str = "unknown", collection: str = "a", mask: str = "", **more):
    """One mask's row, of a made-up evaluation."""
    mask = mask or f"{subject}{collection}{dice}"
    return Row(
        model="model",
        protocol=more.pop("protocol", "box"),
        mask=mask,
        image=f"image of {mask}",
        label=more.pop("label", "liver"),
        modality="CT",
        collection=collection,
        subject=subject,
        scores=Scores(dice, dice / (2 - dice), 1.0, dice),
        **more,
    )


def figure(rows, by: str = "masks"):
    (found,) = (each for each in figures(rows, seed=0) if each.by == by)
    return found


def test_means_are_over_masks_and_over_collections() -> None:
    rows = [row(0.9, collection="large", mask=str(n)) for n in range(8)]
    rows += [row(0.5, collection="small", mask=str(n)) for n in range(8, 13)]
    rows += [row(0.1, collection="too small", mask=str(n)) for n in range(13, 17)]

    assert figure(rows).measures["dice"].mean == pytest.approx((7.2 + 2.5 + 0.4) / 17)
    over_collections = figure(rows, "collections")
    assert over_collections.measures["dice"].mean == pytest.approx(0.7)
    assert over_collections.masks == 13
    by_collection = {f.group: f.masks for f in figures(rows, seed=0) if f.by == "collection"}
    assert by_collection == {"large": 8, "small": 5, "too small": 4}
    # Where none has enough, all count.
    assert figure(rows[-4:], "collections").measures["dice"].mean == pytest.approx(0.1)


def test_labels_that_stand_apart_are_in_no_mean_with_others() -> None:
    rows = [row(0.9, mask="a"), row(0.8, mask="b"), row(0.1, mask="c", label="vessels")]

    found = figures(rows, seed=0, apart=["vessels"])

    means = {(f.by, f.group): round(f.measures["dice"].mean, 6) for f in found}
    assert means["masks", "all"] == means["collection", "a"] == means["modality", "CT"] == 0.85
    assert means["label", "vessels"] == 0.1
    assert figures(rows[2:], seed=0, apart=["vessels"])[0].by == "label"


def test_intervals_are_wider_where_masks_share_a_subject() -> None:
    """Ten masks of one patient are hardly more than one."""
    by = np.random.default_rng(1)
    dices = np.repeat(by.uniform(0.5, 0.9, size=10), 10)

    def width(subject) -> float:
        rows = [row(d, subject=subject(n), mask=str(n)) for n, d in enumerate(dices)]
        dice = figure(rows).measures["dice"]
        assert dice.low is not None
        assert dice.high is not None
        return float(dice.high - dice.low)

    shared, own = width(lambda n: f"patient {n // 10}"), width(lambda n: f"patient {n}")

    assert shared > 2 * own
    assert own == pytest.approx(2 * 1.96 * dices.std() / 10, rel=0.1)  # of independent masks


def test_intervals_are_the_same_for_the_same_seed_only() -> None:
    dices = np.random.default_rng(0).uniform(size=30)
    rows = [row(float(d), mask=str(d)) for d in dices]

    assert figures(rows, seed=1) == figures(rows, seed=1)
    assert figures(rows, seed=1) != figures(rows, seed=2)


def test_one_subject_has_no_interval() -> None:
    rows = [row(d, subject="one", mask=str(d)) for d in (0.3, 0.9)]

    assert figure(rows).measures["dice"].mean == pytest.approx(0.6)
    assert figure(rows).measures["hd95"] == Mean(1.0)


def test_clicks_are_counted_to_an_iou_and_to_a_dice() -> None:
    # A Dice of 0.85 is an IoU of 0.74; an IoU of 0.85 is a Dice of 0.919.
    rows = [
        row(0.95, protocol="clicks", dice_after=(0.6, 0.86, 0.92, 0.95), mask="a"),
        row(0.5, protocol="clicks", dice_after=(0.5, 0.5, 0.5, 0.5), mask="b"),
    ]

    overall = clicks(rows, seed=0)[0]

    assert overall.to_dice["85"].mean == (2 + 4) / 2
    assert overall.to_iou["85"].mean == (3 + 4) / 2
    assert overall.never == {"80": 0.5, "85": 0.5, "90": 0.5}
    assert [mean.mean for mean in overall.dice_after] == pytest.approx([0.55, 0.68, 0.71, 0.725])


class Page(HTMLParser):
    """What a page asks for, and whether it is well formed."""

    VOID = {"meta", "img", "br", "link"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        assert tag not in ("script", "link", "iframe", "object")
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag, attrs) -> None:
        pass

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text.append(data)


@pytest.fixture
def evaluated(tmp_path):
    """An evaluation of a known model in all ways, and the report of it."""
    root = tmp_path / "set"
    samples = read_label2image(write_set(root, images=3), root=root)
    (root / "masks/image2_tiny_000.png").unlink()
    model, _, _ = annotator(radius=6)
    model = replace(model, name="<b>odd & name</b>")
    plan = Plan(rivals=tuple(RIVALS), clicks=4)
    done = evaluate(model, samples, plan=plan, root=root)
    about = About("pairs.json", "sampled, seed 0", "px", plan, {model.name: {"trained": True}})
    write_report(tmp_path / "out", done, about=about)
    return done, about, tmp_path / "out"


def test_the_page_needs_nothing_else_and_is_well_formed(evaluated) -> None:
    html = (evaluated[2] / "report.html").read_text(encoding="utf-8")
    read = Page()
    read.feed(html)

    assert read.open == []
    assert all(a.startswith(("data:image/png;base64,", "#")) for a in read.addresses)
    assert not re.search(r"url\(|@import|https?://", html)
    text = " ".join(read.text)
    assert "<b>odd & name</b>" in text  # escaped, so that it is text
    for said in ("NoC@85", "SAM-Med2D, 256 px", "FileMissing", *RIVALS, *PROTOCOLS):
        assert said in text


def test_the_worst_cases_are_pictures_with_both_outlines(evaluated) -> None:
    done, _, out = evaluated
    (cases,) = done.worst.values()
    html = (out / "report.html").read_text(encoding="utf-8")

    pictures = re.findall(r"data:image/png;base64,([^\"]+)", html)

    assert len(pictures) == len(cases) == 8
    for case, encoded in zip(cases, pictures, strict=True):
        drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
        assert max(drawn.shape[:2]) == SIDE
        assert encoded == base64.b64encode(picture(case)).decode()
        for colour in (TRUTH, PREDICTED):
            # Smoothed lines, so about the colour.
            assert (abs(drawn.astype(int) - colour).max(axis=2) < 60).sum() > 20


def test_results_are_json_with_every_figure(evaluated) -> None:
    done, about, out = evaluated

    results = json.loads((out / "results.json").read_text())

    assert results["format"] == 1
    assert (results["masks"], results["images"]) == (8, 3)
    assert {f["by"] for f in results["figures"]} == {
        "masks",
        "collections",
        "collection",
        "modality",
        "label",
    }
    assert {f["protocol"] for f in results["figures"]} == set(PROTOCOLS)
    assert {m for f in results["figures"] for m in f["measures"]} == {
        "dice",
        "iou",
        "hd95",
        "surface_dice",
    }
    assert results["excluded"][0]["error"] == "FileMissing"
    assert results["published"][0]["dice"]["box"] == 0.793
    (speed,) = results["speed"].values()
    assert (speed["images"], speed["masks"]) == (3, 8)
    assert min(speed["images_per_s"], speed["prompts_per_s"], speed["masks_per_s"]) > 0
    again = results_of(done, summarise(done.rows, seed=0), about=about)
    assert json.loads(json.dumps(again)) == results


def test_the_table_has_a_row_per_mask_and_protocol(evaluated) -> None:
    done, _, out = evaluated

    with (out / "masks.csv").open() as file:
        rows = list(csv.DictReader(file))

    assert len(rows) == len(done.rows) == 8 * 6 + 8 * 2 * 3
    clicked = next(each for each in rows if each["protocol"] == "clicks")
    assert len(clicked["dice_after_clicks"].split()) == 4
    (own,) = (r for r in done.rows if (r.mask, r.protocol) == (clicked["mask"], "clicks"))
    assert float(clicked["dice"]) == pytest.approx(own.scores.dice, abs=1e-5)


def test_the_prompts_that_were_used_can_be_used_again(evaluated, tmp_path) -> None:
    done, about, out = evaluated
    root = tmp_path / "set"
    samples = read_label2image(root / "label2image_test.json", root=root)
    model, _, _ = annotator(radius=6)
    boxes = replace(about.plan, protocols=("box", "box-jittered", "1-point"))

    again = evaluate(
        replace(model, name=done.rows[0].model),
        samples,
        plan=replace(boxes, seed=99),
        prompts=PromptFile(out / "prompts.json", root=root),
        root=root,
    )

    assert {(r.model, r.mask, r.protocol): r.scores for r in again.rows} == {
        (r.model, r.mask, r.protocol): r.scores for r in done.rows if r.protocol in boxes.protocols
    }


def test_a_page_of_one_mask_is_a_page(tmp_path) -> None:
    root = tmp_path / "set"
    samples = read_label2image(write_set(root, images=1), root=root)[:1]
    model, _, _ = annotator()
    plan = Plan(protocols=("clicks",), clicks=1)
    done = evaluate(model, samples, plan=plan, root=root, worst=0)
    about = About("pairs.json", "sampled, seed 0", "px", plan, {model.name: {}})
    summary = summarise(done.rows, seed=0)

    html = page(done, summary, results=results_of(done, summary, about=about))

    read = Page()
    read.feed(html)
    assert read.open == []
    assert "1 mask of 1 image" in " ".join(read.text)


def run(root, out, *checkpoints, **more: str) -> int:
    files = [part for path in checkpoints for part in ("--checkpoint", str(path))]
    options = [part for name, value in more.items() for part in (f"--{name}", value)]
    pairs = ["--pairs", str(root / "label2image_test.json"), "--root", str(root)]
    return main(["evaluate", *pairs, *files, "--out", str(out), *options])


def test_the_command_compares_a_model_with_itself_without_adapters(
    tmp_path, small_checkpoint, capsys
) -> None:
    root, out = tmp_path / "set", tmp_path / "out"
    write_set(root)

    status = run(root, out, small_checkpoint, protocols="box,1-point", limit="3", adapters="on")
    again = main(
        [
            *("evaluate", "--pairs", str(root / "label2image_test.json"), "--root", str(root)),
            *("--checkpoint", str(small_checkpoint), "--adapters", "on", "--adapters", "off"),
            *("--prompts", str(out / "prompts.json"), "--out", str(tmp_path / "both")),
            *("--protocols", "box", "--limit", "3", "--rivals"),
        ]
    )

    assert (status, again) == (0, 0)
    one, both = (json.loads((f / "results.json").read_text()) for f in (out, tmp_path / "both"))
    assert list(one["models"]) == ["small"]
    assert list(both["models"]) == ["small", "small without adapters"]
    assert both["prompts"] == "from prompts.json"
    assert both["masks"] == 3
    assert {d["model"] for d in both["differences"]} == {"small without adapters", *RIVALS}
    dice = {
        (f["model"], f["protocol"]): f["measures"]["dice"]["mean"]
        for f in [*one["figures"], *both["figures"]]
        if f["by"] == "masks"
    }
    assert dice["small", "box"] != dice["small without adapters", "box"]
    assert "small without adapters" in capsys.readouterr().out


def test_a_model_of_another_image_size_without_adapters_is_evaluated(tmp_path) -> None:
    """As original SAM is, at 1024 px; here at 512, which takes a quarter of the time."""
    root = tmp_path / "set"
    write_set(root, images=1)
    model = sam_med2d.build("vit_t", image_size=512, adapters=False)
    metadata = Metadata(
        variant="vit_t", image_size=512, adapters=False, trained=False, origin="a test"
    )
    path = tmp_path / "sam.safetensors"
    path.write_bytes(pack(model.state_dict(), metadata))

    assert run(root, tmp_path / "out", path, clicks="2", small="padded") == 0

    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["models"]["sam"]["image_size"] == 512
    assert results["plan"]["small"] == "padded"
    assert len(results["clicks"][0]["dice_after"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapters": "on"}, "has no adapters"),
        ({"prompts": "nothing.json"}, "nothing.json cannot be read"),
        ({"protocols": "lasso"}, "lasso: not one of box"),
        ({"spacing": "spacing.json"}, "no spacing of"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, capsys, monkeypatch, options, message) -> None:
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path / "set", images=1)
    (tmp_path / "spacing.json").write_text('{"images/other.png": [1, 1]}')
    model = sam_med2d.build("vit_t", adapters=False)
    metadata = Metadata(
        variant="vit_t", image_size=256, adapters=False, trained=False, origin="a test"
    )
    (tmp_path / "model.safetensors").write_bytes(pack(model.state_dict(), metadata))

    assert run(tmp_path / "set", tmp_path / "out", tmp_path / "model.safetensors", **options) == 1

    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_figures_are_in_millimetres_where_all_spacings_are_given(tmp_path) -> None:
    root = tmp_path / "set"
    write_set(root)
    spacing = tmp_path / "spacing.json"
    spacing.write_text(json.dumps({f"images/image{n}.png": [0.5, 0.5] for n in range(2)}))
    path = tmp_path / "small.safetensors"
    path.write_bytes(untrained("vit_t", seed=1))

    assert run(root, tmp_path / "px", path, protocols="box") == 0
    assert run(root, tmp_path / "mm", path, protocols="box", spacing=str(spacing)) == 0

    px, mm = (json.loads((tmp_path / u / "results.json").read_text()) for u in ("px", "mm"))
    assert (px["unit"], mm["unit"]) == ("px", "mm")
    of = [each["figures"][0]["measures"]["hd95"]["mean"] for each in (px, mm)]
    assert of[1] == pytest.approx(of[0] / 2)
