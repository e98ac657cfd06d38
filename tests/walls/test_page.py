"""The page: everything inside it, words beside every picture, other people's text harmless."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from outroute.walls import Plan, Winner
from outroute.walls.report import number, pivot, to_json
from outroute.walls.runner import run
from outroute.walls.state import State, digest_of

from .making import Counting, table

pytest.importorskip("matplotlib", reason="needs the extra 'plot'")


def found(root: Path) -> dict[str, Any]:
    plan = Plan(dataset=table())
    walls = {name: Counting(name, winner=winner) for name, winner in zip(("inversion", "noniid"), Winner, strict=False)}
    done = run(plan, list(walls), State(root, digest_of(plan)), loader=lambda name: walls[name])
    made = to_json(plan, done, digest="abc", command="outroute walls 'a b.csv'", seconds=1.0)
    return json.loads(json.dumps(made, allow_nan=False))


class _Reader(HTMLParser):
    """Tags, attributes and text, and whether every tag is closed in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_fetches_nothing(tmp_path: Path) -> None:
    from outroute.walls.page import render

    made = found(tmp_path)
    page = render(made)
    assert page == render(made)
    reader = _Reader()
    reader.feed(page)
    assert reader.open == []
    tags = [tag for tag, _ in reader.tags]
    assert not {"script", "link", "iframe", "object"} & set(tags)
    for tag, attributes in reader.tags:
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name)
            assert target is None or target.startswith(("#", "data:image/png;base64,")), (tag, target)
        assert not [name for name in attributes if name.startswith("on")]
    assert "url(http" not in page
    assert "@import" not in page
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = set(re.findall(r'(?:url\(|href=")#([^)"]+)', page))
    assert referred <= set(ids)
    assert tags.count("svg") == 2
    for tag, attributes in reader.tags:
        if tag == "svg":
            label = attributes["aria-label"] or ""
            assert "Sums. score against bytes. ours: 1 at 1 to 3 at 100." in label
        if tag == "img":
            assert attributes["alt"]
    assert tags.count("img") == 4
    assert tags.count("figcaption") == 4
    assert "<script>alert(1)</script>" in reader.text
    assert "Outcome routing wins on: inversion." in reader.text
    assert "outroute walls 'a b.csv'" in reader.text
    assert "Two." in reader.text
    assert "Another seed." in reader.text


def test_figures_of_one_method_stand_in_one_row() -> None:
    base = {"low": None, "high": None, "ours": False, "baseline": False, "note": ""}
    scores = [
        base | {"method": "a", "metric": "AUC", "value": 0.8123, "higher_is_better": True, "low": 0.8, "high": 0.9},
        base | {"method": "a", "metric": "bytes", "value": 1234567.0, "higher_is_better": False, "note": "once"},
        base | {"method": "b", "metric": "AUC", "value": None, "higher_is_better": True, "baseline": True},
        base | {"method": "a", "metric": "AUC", "value": 0.5, "higher_is_better": True},
    ]
    made = pivot(scores)
    assert made.columns == ["AUC ↑", "bytes ↓"]
    assert [(row[0], list(row[1]), row[2]) for row in made.rows] == [
        ("a", ["0.812 (0.800 to 0.900)", "1,234,567"], "once"),
        ("b", ["-", ""], "for comparison"),
        ("a", ["0.500", ""], ""),
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (3.0, "3"), (0.00012, "1.2e-04"), (-0.5, "-0.500"), (12345.6, "12,346"), (None, "-")],
)
def test_digits_that_matter(value: float | None, text: str) -> None:
    assert number(value) == text
