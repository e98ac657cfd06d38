"""The page: everything inside it, words beside every picture, other people's text harmless."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from outroute.walls import Plan, Winner
from outroute.walls.report import pivot, to_json
from outroute.walls.runner import run
from outroute.walls.state import State, digest_of
from outroute.walls.units import number

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
    assert made.columns == ["AUC\u00a0↑", "bytes\u00a0↓"]
    assert [(row[0], list(row[1]), row[2]) for row in made.rows] == [
        ("a", [("0.812", "(0.800 to 0.900)"), ("1.23 MB", "")], "once"),
        ("b", [("-", ""), ("", "")], "for comparison"),
        ("a", [("0.500", ""), ("", "")], ""),
    ]


def test_only_tables_with_intervals_say_so_and_notes_stand_under_methods_for_a_phone(tmp_path: Path) -> None:
    from outroute.walls.page import render

    made = found(tmp_path)
    one = made["walls"]["inversion"]["scores"][0]
    known = render(made)
    assert "<th>method (95 % interval)</th>" in known
    assert 'class="interval">(0 to 9)</span>' in known
    assert known.count('<span class="under">&quot;x&quot; &amp; y</span>') == known.count('<td class="note">')
    one["low"] = None
    part = made["walls"]["noniid"]["scores"][0]
    part["high"] = None
    without = render(made)
    assert without.count("<th>method (95 % interval)</th>") == known.count("<th>method (95 % interval)</th>") - 2
    assert without.count("<th>method</th>") == 2


def test_lines_for_comparison_can_be_told_apart() -> None:
    from outroute.walls.pictures import curves_svg

    def dashes(baselines: int) -> set[str]:
        base = {"low": None, "high": None, "ours": False, "points": False, "baseline": True, "x": [1, 2], "y": [1, 2]}
        curves = [base | {"label": f"line {i}"} for i in range(baselines)]
        axes = {"title": "t", "caption": "c", "x": "x", "y": "y", "log_x": False, "log_y": False, "images": []}
        return set(re.findall(r"stroke-dasharray: ([^;]+);", curves_svg(axes | {"curves": curves}, "a")))

    assert len(dashes(3)) == 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (3.0, "3"),
        (0.00012, "0.0001"),
        (0.000012, "1.2e-05"),
        (-0.5, "-0.500"),
        (12345.6, "12,346"),
        (None, "-"),
    ],
)
def test_digits_that_matter(value: float | None, text: str) -> None:
    assert number(value) == text
