"""The page of a report: complete without the network, safe with any text, charts that count right."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from detlit.reports.charts import bars, histogram
from detlit.reports.gallery import mark_boxes, side_by_side
from detlit.reports.html import Page, Picture


class Tags(HTMLParser):
    """Checks that tags are closed in order, and keeps the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def full_page() -> Page:
    page = Page("Cells & <others>", "on Monday")
    page.figures([(1234, "images")])
    page.section("First", "What <b>it</b> is.")
    page.message("error", "3 faults", "Mend them.", ["a < b", "c", "d", "e", "f", "g", "h"], shown=4)
    page.table(["class", "count", "mean"], [["red", 12345, 0.5], ["<white>", 3, np.float64(2.25)]])
    page.section("Second")
    page.histogram("sizes", [1, 2, 2, 3], "pixels")
    page.bars("classes", ["red", "<white>"], [3, 1])
    image = np.full((20, 30, 3), 200, np.uint8)
    page.picture_grid([Picture(image, "one"), Picture(image, "two")])
    return page


def test_the_page_is_well_formed_and_needs_nothing_else() -> None:
    html = full_page().html()
    tags = Tags(html)
    assert "script" not in tags.names
    assert not re.search(r"""(src|href)=["'](?!data:|#)|url\(|@import|https?://""", html)
    assert {"h1", "h2", "table", "svg", "img", "details"} <= set(tags.names)
    assert "prefers-color-scheme: dark" in html


def test_text_is_escaped() -> None:
    html = full_page().html()
    assert "<b>it</b>" not in html
    assert "<white>" not in html
    assert "Cells & <others>" in "".join(Tags(html).words)


def test_the_contents_link_to_the_sections() -> None:
    html = full_page().html()
    links = dict(re.findall(r'<a href="#(\w+)">(\w+)</a>', html))
    assert links == dict(re.findall(r'<h2 id="(\w+)">(\w+)</h2>', html)) == {"s1": "First", "s2": "Second"}
    assert html.index("<h1>") < html.index("on Monday") < html.index("<nav>") < html.index("<h2")


def test_numbers_in_tables_are_grouped_and_aligned() -> None:
    html = full_page().html()
    assert '<td class="number">12,345</td><td class="number">0.5</td>' in html
    assert "<td>red</td>" in html


def test_long_lists_unfold_and_say_what_they_leave_out() -> None:
    words = Tags(full_page().html()).words
    assert "where (7)" in words
    assert "and 3 more" in words
    assert {"a < b", "c", "d", "e"} <= set(words)
    assert not {"f", "g", "h"} & set(words)


def test_pictures_and_charts_that_follow_each_other_share_a_line() -> None:
    html = full_page().html()
    assert (html.count('<div class="pictures">'), html.count('<div class="charts">')) == (1, 1)


def test_pictures_are_embedded(tmp_path: Path) -> None:
    page = Page("t")
    image = np.zeros((16, 24, 3), np.uint8)
    image[..., 0] = 250  # red
    page.picture_grid([Picture(image, "x")])
    page.write(tmp_path / "p.html")
    data = re.search(r"data:image/jpeg;base64,([^\"]+)", (tmp_path / "p.html").read_text(encoding="utf-8"))
    assert data is not None
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data[1]), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    decoded = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    assert decoded.shape == image.shape
    assert np.abs(decoded.astype(int) - image).max() < 8


def counts_in(svg: str) -> list[tuple[str, int]]:
    return [(name, int(count.replace(",", ""))) for name, count in re.findall(r"<title>(.*?): ([\d,]+)</title>", svg)]


@pytest.mark.parametrize(
    ("values", "logarithmic", "counts"),
    [
        ([1, 2, 2, 4], False, [("1", 1), ("2", 2), ("3", 0), ("4", 1)]),
        ([5, 5], False, [("5", 2)]),
        ([0.5], False, [("0 to 1", 1)]),
        ([7.25, 7.25], True, [("6.8 to 7.8", 2)]),
    ],
)
def test_a_histogram_counts(values: list[float], logarithmic: bool, counts: list[tuple[str, int]]) -> None:
    assert counts_in(histogram(np.array(values, dtype=np.float64), logarithmic=logarithmic)) == counts


def test_no_value_is_lost_and_those_that_cannot_be_shown_are_left_out() -> None:
    generator = np.random.default_rng(0)
    for values in (generator.normal(size=500), generator.integers(0, 3000, 500).astype(float), generator.random(500)):
        assert sum(count for _, count in counts_in(histogram(values))) == 500
        logarithmic = counts_in(histogram(values, logarithmic=True))
        assert sum(count for _, count in logarithmic) == (values > 0).sum()
    assert counts_in(histogram(np.array([1.0, np.nan, np.inf, 2.0])))[0] == ("1", 1)
    assert "nothing to count" in histogram(np.array([np.nan]))


def test_wide_ranges_of_whole_numbers_have_equal_bins() -> None:
    names = [name for name, _ in counts_in(histogram(np.arange(1, 31, dtype=np.float64)))]
    assert names[:2] == ["1 to 2", "3 to 4"]
    assert {count for _, count in counts_in(histogram(np.arange(1, 31, dtype=np.float64)))} == {2}


def test_bars_are_as_long_as_their_values() -> None:
    svg = bars(["a", "b", "c"], [4, 1, 0])
    widths = [float(width) for width in re.findall(r'class="bar"[^>]*width="([\d.]+)"', svg)]
    assert widths == [160, 40, 0]
    assert "nan" not in bars(["a"], [0])


def test_marked_boxes_stand_out_and_the_image_is_left_alone() -> None:
    image = np.full((100, 200, 3), 90, np.uint8)
    boxes = np.array(
        [[20.0, 40, 90, 90], [120, 40, 180, 90], [np.nan, 0, 1, 1], [150, 60, 150, 60], [300, 10, 400, 20]]
    )
    drawn = mark_boxes(image, boxes, [0], ["cat"], side=200)
    assert (image == 90).all()
    assert drawn.shape == image.shape
    assert drawn[90, 50].tolist() == [255, 45, 85]
    assert drawn[90, 150].tolist() == [235, 235, 235]
    ringed = mark_boxes(image, boxes, [3], ["dot"], side=200)
    assert ringed[60, 174, 0] > 200  # a ring of 24 pixels around the box without area
    for row in (2, 4):
        mark_boxes(image, boxes, [row], ["elsewhere"])


def test_small_images_become_larger_and_large_ones_small() -> None:
    assert mark_boxes(np.zeros((12, 16, 3), np.uint8), np.zeros((0, 4)), [], [], side=320).shape == (120, 160, 3)
    image = np.zeros((1000, 2000, 3), np.uint8)
    boxes = np.array([[1000.0, 500, 1500, 900]])
    drawn = mark_boxes(image, boxes, [0], [""], side=200)
    assert drawn.shape == (100, 200, 3)
    assert drawn[90, 120].tolist() == [255, 45, 85]
    assert side_by_side(image, image[:, :500], side=200).shape[1] <= 200
