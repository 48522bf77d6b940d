"""Whoever follows a link in the documentation arrives."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "STYLE.md", *sorted((ROOT / "docs").rglob("*.md")))
GUIDES = ("docs/user-guide.md", "docs/admin-guide.md")
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)


def test_links_within_the_repository_lead_somewhere() -> None:
    dead = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in PAGES
        for link in _links(page)
        if not _leads_somewhere(link, page)
    ]
    assert dead == []


def test_there_are_links_to_judge() -> None:
    assert sum(len(_links(page)) for page in PAGES) > 50


def test_the_guides_list_their_chapters() -> None:
    missing = [
        f"{guide}: {anchor}"
        for guide in GUIDES
        for anchor in _anchors(ROOT / guide, deepest=2)
        if f"#{anchor}" not in _links(ROOT / guide)
    ]
    assert missing == []


def test_every_picture_is_shown() -> None:
    shown = {(page.parent / link).resolve() for page in PAGES for link in _links(page)}
    assert [
        picture for picture in (ROOT / "docs/screenshots").iterdir() if picture not in shown
    ] == []


def _links(page: Path) -> list[str]:
    found = LINK.findall(CODE.sub("", page.read_text()))
    return [link for link in found if not link.startswith(("http:", "https:", "mailto:"))]


def _leads_somewhere(link: str, page: Path) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path) if path else page
    return target.exists() and (anchor == "" or anchor in _anchors(target))


def _anchors(page: Path, *, deepest: int = 6) -> list[str]:
    """As GitHub makes them of headings, below the page's own."""
    return [
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for signs, title in HEADING.findall(CODE.sub("", page.read_text()))
        if 1 < len(signs) <= deepest
    ]
