"""The report as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from mlworker.training.asking import CLICKS
from mlworker.training.evaluate import Case, Evaluation
from mlworker.training.metrics import TOLERANCE
from mlworker.training.pictured import picture
from mlworker.training.plots import Series, Shape, dot_plot, legend, line_plot
from mlworker.training.rivals import RIVALS
from mlworker.training.summary import GROUPS, LEAST_MASKS, Clicks, Figure, Mean, Summary

_MODEL_COLOURS: Final = ("s0", "s1", "s2", "s3")
_RIVAL_SHAPES: Final[tuple[Shape, ...]] = ("square", "triangle", "ring")
_TITLES: Final = {"dice": "Dice", "iou": "IoU", "hd95": "HD95", "surface_dice": "surface Dice"}
_HEADLINE: Final = ("box", "box-jittered", "1-point", "3-points", "5-points")


def page(evaluation: Evaluation, summary: Summary, *, results: Mapping[str, Any]) -> str:
    """The page; ``results`` is what results.json holds."""
    models = list(evaluation.worst)
    sections = [
        _heading(summary, models, results),
        _overview(summary, models, results),
        _clicks(summary, models),
        *(_worst(name, cases) for name, cases in evaluation.worst.items()),
        _overall(summary, results),
        _differences(summary),
        *(_groups(summary, by, models) for by in GROUPS),
        _excluded(results),
        _speed(results),
        _meaning(results),
    ]
    return document(f"Evaluation of {', '.join(models)}", "".join(sections))


def document(title: str, body: str) -> str:
    """A page in the report's style, by itself in one file; ``body`` is HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _heading(summary: Summary, models: Sequence[str], results: Mapping[str, Any]) -> str:
    collections = [f for f in summary.figures if f.by == "collection"]
    names = sorted({figure.group for figure in collections})
    facts = [
        f"{_count(results['masks'], 'mask')} of {_count(results['images'], 'image')}",
        f"{_count(len(names), 'collection')}: {', '.join(names[:6])}{' …' if names[6:] else ''}",
        f"from {results['pairs']}",
        f"prompts {results['prompts']}",
    ]
    if results["plan"]["apart"]:
        facts.append(f"{', '.join(results['plan']['apart'])} apart: in the figures by label only")
    warning = ""
    if results["excluded"]:
        left = _count(len(results["excluded"]), "mask")
        warning = f'<p class="warning">{left} left out: <a href="#excluded">see why</a>.</p>'
    if untrained := [name for name in models if not results["models"][name].get("trained", True)]:
        names_ = escape(", ".join(untrained))
        warning += f'<p class="warning">{names_}: random weights, which nobody has trained.</p>'
    tiles = "".join(_tiles(summary, model) for model in models)
    return (
        f"<header><h1>{escape(' and '.join(models))}</h1>"
        f'<p class="facts">{escape(" · ".join(facts))}</p>{warning}</header>{tiles}'
    )


def _tiles(summary: Summary, model: str) -> str:
    tiles = []
    for figure in summary.figures:
        if (figure.model, figure.by) == (model, "masks") and figure.protocol in _HEADLINE:
            tiles.append(_tile(f"Dice, {figure.protocol}", figure.measures["dice"], digits=3))
    for clicks in summary.clicks:
        if (clicks.model, clicks.by) == (model, "masks"):
            tiles.append(_tile("NoC@85 (IoU)", clicks.to_iou["85"], digits=1))
    return (
        f'<section class="tiles"><h2 class="model">{escape(model)}</h2>{"".join(tiles)}</section>'
    )


def _tile(title: str, mean: Mean, *, digits: int) -> str:
    interval = ""
    if mean.low is not None and mean.high is not None:
        interval = f"{mean.low:.{digits}f} – {mean.high:.{digits}f}"
    return (
        f'<div class="tile"><span>{escape(title)}</span><b>{mean.mean:.{digits}f}</b>'
        f"<small>{interval or '&nbsp;'}</small></div>"
    )


def _overview(summary: Summary, models: Sequence[str], results: Mapping[str, Any]) -> str:
    series = _series(summary, models)
    protocols = [p for p in results["plan"]["protocols"] if p != CLICKS]
    published = [
        Series(
            f"{each['model']}, as published ({each['data']})",
            f"p{number}",
            "diamond",
            {protocol: Mean(value) for protocol, value in each["dice"].items()},
        )
        for number, each in enumerate(results["published"][:3])
    ]
    if not protocols:
        return ""
    plot = dot_plot([*series, *published], protocols, title="Dice by protocol")
    rows = [
        [escape(each["model"]), escape(each["data"])]
        + [f"{each['dice'][p]:.3f}" if p in each["dice"] else "–" for p in _HEADLINE]
        for each in results["published"]
    ]
    ours = [
        [f"<b>{escape(model)}</b>", "here"]
        + [_interval(_overall_dice(summary, model).get(p)) for p in _HEADLINE]
        for model in models
    ]
    table = _table(["model", "masks of", *_HEADLINE], [*ours, *rows], text=2)
    return (
        f"<section><h2>Dice by protocol</h2>{legend([*series, *published])}{plot}"
        '<p class="note">Means over all masks with 95 % intervals. The published figures are of'
        " other images than these: they stand beside ours for scale, not as a contest.</p>"
        f"{table}</section>"
    )


def _overall_dice(summary: Summary, model: str) -> dict[str, Mean]:
    return {
        figure.protocol: figure.measures["dice"]
        for figure in summary.figures
        if figure.model == model and figure.by == "masks"
    }


def _series(summary: Summary, models: Sequence[str]) -> list[Series]:
    rivals = [name for name in RIVALS if any(f.model == name for f in summary.figures)]
    found = []
    for number, model in enumerate(models):
        colour = _MODEL_COLOURS[number % len(_MODEL_COLOURS)]
        found.append(Series(model, colour, "disc", _overall_dice(summary, model)))
    for rival, shape in zip(rivals, _RIVAL_SHAPES, strict=False):
        found.append(Series(rival, "rival", shape, _overall_dice(summary, rival)))
    return found


def _clicks(summary: Summary, models: Sequence[str]) -> str:
    overall = {clicks.model: clicks for clicks in summary.clicks if clicks.by == "masks"}
    if not overall:
        return ""
    series = [each for each in _series(summary, models) if each.name in overall]
    lines = [(each, overall[each.name].dice_after) for each in series]
    plot = line_plot(lines, title="Dice after k clicks", x_title="clicks")
    first = next(iter(overall.values()))
    head = ["model", "masks", *(f"NoC@{t}" for t in first.to_iou)]
    head += [f"to Dice {t}" for t in first.to_dice]
    rows = [_click_row(escape(clicks.model), clicks) for clicks in overall.values()]
    groups = "".join(
        _folded(
            f"By {by}",
            _table(
                [by, *head],
                [
                    [escape(clicks.group), *_click_row(escape(clicks.model), clicks)]
                    for clicks in summary.clicks
                    if clicks.by == by
                ],
                text=2,
            ),
        )
        for by in GROUPS
    )
    return (
        f"<section><h2>Clicks</h2><h3>Dice after k clicks</h3>{legend(series)}{plot}"
        f"<h3>Clicks needed</h3>{_table(head, rows)}"
        f'<p class="note">NoC@85 is the mean number of clicks to an IoU of 0.85; a mask that never'
        f" arrives counts as {first.most}, and <i>never</i> is their share. <i>To Dice 85</i> is"
        f" the same to a Dice of 0.85, which is less: an IoU of 0.74.</p>{groups}</section>"
    )


def _click_row(name: str, clicks: Clicks) -> list[str]:
    return [
        name,
        str(clicks.masks),
        *(
            f"{_interval(mean, digits=2)}<small>never: {clicks.never[target]:.0%}</small>"
            for target, mean in clicks.to_iou.items()
        ),
        *(_interval(mean, digits=2) for mean in clicks.to_dice.values()),
    ]


def _overall(summary: Summary, results: Mapping[str, Any]) -> str:
    sections = []
    means = [("masks", "Mean over masks"), ("collections", "Mean over collections")]
    if sum(f.by == "collection" for f in summary.figures) == len(_rows_of(summary, "masks")):
        means.pop()  # of one collection it is the same
    for by, title in means:
        rows = [
            [escape(figure.protocol), *_figure_row(figure)]
            for figure in sorted(
                (f for f in summary.figures if f.by == by),
                key=lambda f: results["plan"]["protocols"].index(f.protocol),
            )
        ]
        head = ["protocol", "model", "masks", "subjects", *_measures(results)]
        sections.append(f"<h3>{title}</h3>{_table(head, rows, text=2)}")
    return f"<section><h2>All measures</h2>{''.join(sections)}</section>"


def _rows_of(summary: Summary, by: str) -> list[Figure]:
    return [figure for figure in summary.figures if figure.by == by]


def _figure_row(figure: Figure) -> list[str]:
    return [
        escape(figure.model),
        str(figure.masks),
        str(figure.subjects),
        *(
            _interval(mean, digits=1 if name == "hd95" else 3)
            for name, mean in figure.measures.items()
        ),
    ]


def _measures(results: Mapping[str, Any]) -> list[str]:
    unit = {"hd95": f" ({results['unit']})"}
    return [title + unit.get(name, "") for name, title in _TITLES.items()]


def _groups(summary: Summary, by: str, models: Sequence[str]) -> str:
    of = [figure for figure in summary.figures if figure.by == by]
    protocols = list(dict.fromkeys(figure.protocol for figure in of))
    groups = list(dict.fromkeys(figure.group for figure in of))
    names = list(dict.fromkeys(figure.model for figure in of))
    cells = {(f.group, f.model, f.protocol): f for f in of}
    rows = []
    for group in groups:
        for name in names:
            here = [cells.get((group, name, protocol)) for protocol in protocols]
            any_ = next(figure for figure in here if figure)
            shown = [_shaded(f.measures["dice"]) if f else "<td></td>" for f in here]
            weight = "" if name in models else ' class="quiet"'
            first = name == names[0]
            rows.append(
                f"<tr{weight}><th>{escape(group) if first else ''}</th>"
                f'<td class="text">{escape(name)}</td><td>{any_.masks if first else ""}</td>'
                f"<td>{any_.subjects if first else ''}</td>{''.join(shown)}</tr>"
            )
    head = _head([by, "model", "masks", "subjects", *protocols], text=2)
    matrix = _framed(head, "".join(rows))
    everything = _table(
        [by, "protocol", "model", "masks", "subjects", *_TITLES.values()],
        [[escape(f.group), escape(f.protocol), *_figure_row(f)] for f in of],
        text=3,
    )
    return f"<section><h2>Dice by {by}</h2>{matrix}{_folded('All measures', everything)}</section>"


def _shaded(mean: Mean) -> str:
    """A cell, the fuller the better: from 0.5 on, where figures begin to be worth comparing."""
    share = max(0.0, min(1.0, (mean.mean - 0.5) / 0.5))
    return f'<td style="--full:{share:.2f}" class="shaded">{_interval(mean)}</td>'


def _differences(summary: Summary) -> str:
    if not summary.differences:
        return ""
    first = summary.differences[0].than
    rows = [
        [escape(d.model), escape(d.protocol), str(d.masks), _interval(d.dice, sign="+")]
        for d in summary.differences
    ]
    return (
        f"<section><h2>Against {escape(first)}</h2>"
        f"{_table(['model', 'protocol', 'masks', 'Dice more than it'], rows, text=2)}"
        '<p class="note">Paired, mask by mask: an interval without zero is a difference that is not'
        " the choice of these subjects.</p></section>"
    )


def _worst(model: str, cases: Sequence[Case]) -> str:
    if not cases:
        return ""
    figures = "".join(_case(case) for case in cases)
    protocol = cases[0].row.protocol
    return (
        f"<section><h2>Worst cases: {escape(model)}, {escape(protocol)}</h2>"
        '<p class="legend"><span class="key"><i class="truth"></i>truth</span>'
        '<span class="key"><i class="predicted"></i>prediction</span>'
        '<span class="key"><i class="prompt"></i>prompt</span></p>'
        f'<div class="cases">{figures}</div></section>'
    )


def _case(case: Case) -> str:
    row = case.row
    data = base64.b64encode(picture(case)).decode()
    return (
        f'<figure><img alt="{escape(row.label)} of {escape(row.image)}"'
        f' src="data:image/png;base64,{data}">'
        f"<figcaption><b>{escape(row.label)}</b> <span>Dice {row.scores.dice:.3f}</span>"
        f"<small>{escape(row.mask)}</small></figcaption></figure>"
    )


def _excluded(results: Mapping[str, Any]) -> str:
    if not results["excluded"]:
        return ""
    rows = [
        [f"<span class=long>{escape(each[key])}</span>" for key in ("mask", "error", "reason")]
        for each in results["excluded"]
    ]
    return (
        '<section id="excluded"><h2>Left out</h2>'
        f"{_table(['mask', 'error', 'reason'], rows, text=3)}</section>"
    )


def _speed(results: Mapping[str, Any]) -> str:
    rows = []
    for name, speed in results["speed"].items():
        about = results["models"][name]
        what = f"{about.get('variant', '')} at {about.get('image_size', '')} px"
        adapters = "with adapters" if about.get("adapters") else "without adapters"
        rows.append(
            [
                escape(name),
                escape(f"{what}, {adapters}"),
                f"{speed['images_per_s']:.2f}",
                f"{speed['prompts_per_s']:.1f}",
                f"{speed['masks_per_s']:.2f}",
                f"{speed['images']}",
                f"{speed['prompts']}",
                f"{speed['total_s']:.0f} s",
                f"<code>{escape(str(about.get('digest', ''))[:12])}</code>",
            ]
        )
    head = ["model", "what", "images/s", "prompts/s", "masks/s, all in all"]
    head += ["images", "prompts", "took", "digest"]
    return (
        f"<section><h2>Speed</h2>{_table(head, rows, text=2)}"
        '<p class="note">Images: prepared and encoded, each once. Prompts: decoded to masks of the'
        " image's size. All in all: reading and measuring too, in all protocols.</p></section>"
    )


def _meaning(results: Mapping[str, Any]) -> str:
    plan, unit = results["plan"], results["unit"]
    items = (
        ("box", "the box around the mask"),
        ("box-jittered", "each side moved on its own by up to 10 % of the box's own side"),
        (
            "1, 3, 5 points",
            "a point anywhere in the mask, then points anywhere in what is still wrong, each with"
            " the last answer as mask prompt; or at once where a file gives enough",
        ),
        ("clicks", "the innermost pixel of the largest region that is wrong, one after another"),
        (
            "HD95",
            f"the larger of the two directed 95th percentiles of the outlines' distances, in"
            f" {unit}; the image's diagonal where one mask is empty",
        ),
        (
            "surface Dice",
            f"the share of both outlines within {plan['tolerance']:g} {unit} of the other"
            f" (usual here: {TOLERANCE:g})",
        ),
        (
            "intervals",
            "95 %, by bootstrap over subjects (where unknown: images); none of a single subject",
        ),
        (
            "mean over collections",
            f"of collections with at least {LEAST_MASKS} masks, where there are any",
        ),
        ("small images", f"{plan['small']} where they are smaller than the model's square"),
        ("seed", str(plan["seed"])),
    )
    definitions = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in items)
    return f"<section><h2>What the words mean</h2><dl>{definitions}</dl></section>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, text: int = 1) -> str:
    """Cells are HTML; the first ``text`` columns are words, the others numbers."""
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="text">{cell}</td>' if number < text else f"<td>{cell}</td>"
            for number, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return _framed(_head(head, text=text), body)


def _head(titles: Sequence[str], *, text: int) -> str:
    return "".join(
        f'<th class="text">{escape(title)}</th>' if number < text else f"<th>{escape(title)}</th>"
        for number, title in enumerate(titles)
    )


def _framed(head: str, body: str) -> str:
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def _interval(mean: Mean | None, *, digits: int = 3, sign: str = "") -> str:
    if mean is None:
        return "–"
    if mean.low is None or mean.high is None:
        return f"{mean.mean:{sign}.{digits}f}"
    return (
        f"{mean.mean:{sign}.{digits}f}"
        f" <small>{mean.low:{sign}.{digits}f} – {mean.high:{sign}.{digits}f}</small>"
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


_STYLE: Final = """
:root { color-scheme: light dark; --ground:#f6f7f9; --card:#fff; --ink:#1c2330; --quiet:#5c6675;
  --line:#e2e6ec; --band:#f3f5f8; --warn:#8a4b00; --warnground:#fff4e0; --shade:37,99,168;
  --c0:#2563a8; --c1:#c2410c; --c2:#4d7c0f; --c3:#7e22ce; --rival:#6b7687; --p0:#0f8f83;
  --p1:#a7a02a; --p2:#b0578d; }
@media (prefers-color-scheme: dark) { :root { --ground:#12161d; --card:#1a202a; --ink:#e6eaf0;
  --quiet:#97a3b4; --line:#2c3544; --band:#202835; --warn:#ffcf8a; --warnground:#3a2b12;
  --shade:96,165,250; --c0:#6aa9f0; --c1:#f58a4b; --c2:#9bcb4d; --c3:#c08cf5; --rival:#9aa7b8;
  --p0:#3fc7b8; --p1:#d6cf5a; --p2:#e08abd; } }
* { box-sizing:border-box }
body { margin:0; background:var(--ground); color:var(--ink);
  font:15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif }
main { max-width:1080px; margin:0 auto; padding:32px 20px 64px }
header h1 { font-size:28px; margin:0; letter-spacing:-.01em }
.facts { color:var(--quiet); margin:4px 0 16px }
.warning { background:var(--warnground); color:var(--warn); padding:8px 14px; border-radius:8px;
  margin:8px 0 } .warning a { color:inherit }
section { background:var(--card); border:1px solid var(--line); border-radius:12px;
  padding:20px 24px; margin:16px 0 }
h2 { font-size:19px; margin:0 0 10px } h3 { font-size:15px; margin:18px 0 6px }
.tiles { display:grid; grid-template-columns:repeat(auto-fit, minmax(132px, 1fr)); gap:12px;
  padding:16px 24px } .tiles .model { grid-column:1 / -1; margin:0; font-size:15px }
.tile { display:flex; flex-direction:column; padding:10px 14px; background:var(--band);
  border-radius:8px } .tile span { font-size:13px; color:var(--quiet) }
.tile b { font-size:24px; font-variant-numeric:tabular-nums; line-height:1.3 }
small { color:var(--quiet); font-size:.82em; font-variant-numeric:tabular-nums; white-space:nowrap }
.wide { overflow-x:auto } table { border-collapse:collapse; width:100%; font-size:14px }
th, td { padding:5px 10px; text-align:right; border-bottom:1px solid var(--line);
  font-variant-numeric:tabular-nums } thead th { color:var(--quiet); font-weight:600;
  vertical-align:bottom; white-space:nowrap }
tbody th, .text { text-align:left; white-space:nowrap } tbody th { font-weight:600 }
.long { white-space:normal; overflow-wrap:anywhere } tbody tr:last-child > * { border-bottom:0 }
td small { display:block }
.shaded { background:rgba(var(--shade), calc(var(--full) * .22)) }
.quiet { color:var(--quiet) } .quiet .shaded { background:none }
.note { color:var(--quiet); font-size:13px; margin:10px 0 0; max-width:76ch }
details { margin-top:12px } summary { cursor:pointer; color:var(--quiet) }
.legend { display:flex; flex-wrap:wrap; gap:4px 18px; margin:0 0 8px; font-size:13px }
.key { display:inline-flex; align-items:center; gap:6px } .key svg { overflow:visible }
.key i { width:16px; height:0; border-top:3px solid } .truth { color:#19b5d8 }
.predicted { color:#ff8c00 } .key i.prompt { border-top:2px dashed var(--quiet) }
.plot { width:100%; height:auto; display:block }
.plot text { font-size:12px; fill:var(--ink) } .plot .tick { fill:var(--quiet); text-anchor:middle }
.plot .tick.end { text-anchor:end } .plot .value { font-size:11.5px; fill:var(--colour) }
.band { fill:var(--band) } .grid { stroke:var(--line) }
.s0 { --colour:var(--c0) } .s1 { --colour:var(--c1) } .s2 { --colour:var(--c2) }
.s3 { --colour:var(--c3) } .rival { --colour:var(--rival) } .p0 { --colour:var(--p0) }
.p1 { --colour:var(--p1) } .p2 { --colour:var(--p2) }
.mark { fill:var(--colour); stroke:var(--card); stroke-width:1 }
.hollow { fill:var(--card); stroke:var(--colour); stroke-width:2 }
.interval { stroke:var(--colour); stroke-width:2.5; opacity:.45 }
.line { fill:none; stroke:var(--colour); stroke-width:2 } .fill { fill:var(--colour); opacity:.14 }
.cases { display:grid; grid-template-columns:repeat(auto-fill, minmax(220px, 1fr)); gap:16px }
figure { margin:0 } figure img { width:100%; aspect-ratio:1; object-fit:contain; background:#000;
  border-radius:8px; display:block } figcaption { font-size:13px; display:flex; flex-wrap:wrap;
  justify-content:space-between; gap:0 8px; margin-top:6px }
figcaption small { width:100%; overflow:hidden; text-overflow:ellipsis }
dl { display:grid; grid-template-columns:max-content 1fr; gap:6px 20px; margin:0; font-size:14px }
dt { color:var(--quiet) } dd { margin:0 }
@media (max-width:600px) { dl { grid-template-columns:1fr } section { padding:16px } }
@media print { body { background:none } section { break-inside:avoid; border:0; padding:0 } }
"""
