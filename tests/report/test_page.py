"""The page stands alone, escapes what it is given, and can be read without eyes."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from markupsafe import Markup

from gridloom.core.errors import DataError
from gridloom.core.score import Score
from gridloom.report.page import Card, Section, render_page, write_page
from gridloom.report.svg import inline_svg
from gridloom.viz.curve import bars, curves
from gridloom.viz.field import field_rows
from gridloom.viz.style import to_png_bytes, to_svg

EVIL = "<script>alert(1)</script>\"'&"
_VOID = {"meta", "link", "img", "br"}


def score(method, metric, value, low, high):
    return Score(
        data="sea", split="test", method=method, metric=metric, unit="1" if metric == "skill" else "degC", group="all",
        seed=0, value=value, low=low, high=high, num_blocks=20,
    )  # fmt: skip


SCORES = [
    score("persistence", "skill", 0.0, 0.0, 0.0),
    score("model", "skill", 0.5, 0.4, 0.6),
    score("persistence", "rmse", 1.0, 0.9, 1.1),
    score("model", "rmse", 0.7, 0.6, 0.8),
]
LINE = (np.arange(5.0), np.arange(5.0) ** 2)
SVG = to_svg(curves({"training": LINE, "validation": LINE}, xlabel="step", ylabel="loss"))
BARS = to_svg(bars(SCORES))
PNG = to_png_bytes(field_rows([{"truth": np.eye(8)}]))


def page(text="plain", **more):
    section = Section(
        title=f"Training {text}",
        text=f"First {text}.\n\nSecond.",
        figures=[(f"Loss {text}", SVG), (f"Skill {text}", BARS), (f"Field {text}", PNG)],
        tables=[SCORES, f"a note {text}", Markup("<table><tr><td>own</td></tr></table>")],
    )
    return render_page(
        f"semantic {text}",
        f"on etopo20 {text}",
        [section, Section(title="Again", figures=[("Loss once more", SVG)])],
        command=f"gridloom train {text}",
        config_yaml=f"seed: 0 # {text}",
        versions={"torch": f"2.13 {text}"},
        warnings=[f"still falling {text}"],
        cards=[Card(label=f"skill {text}", value="0.5", note=f"90 % {text}")],
        **more,
    )


class Reader(HTMLParser):
    """Collects elements, and checks that they close in order."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.text = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_well_formed_and_has_all_parts():
    reader = Reader(page())
    assert reader.open == []
    text = " ".join(reader.text)
    for part in (
        "semantic plain",
        "still falling plain",
        "First plain.",
        "gridloom train plain",
        "seed: 0",
        "2.13 plain",
    ):
        assert part in text
    assert "model is better than persistence: skill 0.500 (90 % interval 0.400 to 0.600, 20 blocks)" in text
    assert "<strong>0.50</strong>" in page()
    assert "<td>own</td>" in page()


def test_nothing_comes_from_outside_and_nothing_runs():
    html = page()
    reader = Reader(html)
    tags = {tag for tag, _ in reader.elements}
    assert not tags & {"script", "iframe", "object", "embed", "form", "base"}
    for tag, attributes in reader.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "action", "srcset"):
                assert value.startswith(("#", "data:")), (tag, name, value[:60])
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html
    assert "://" not in html


def test_what_users_write_is_escaped_everywhere():
    html = page(EVIL)
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 14
    Reader(html)


def test_every_figure_has_its_caption_as_alternative_text():
    reader = Reader(page(EVIL))
    pictures = [(tag, attributes) for tag, attributes in reader.elements if tag in ("img", "svg")]
    named = [attributes.get("alt") or attributes.get("aria-label") for _, attributes in pictures]
    assert named == [f"Loss {EVIL}", f"Skill {EVIL}", f"Field {EVIL}", "Loss once more"]
    assert all(attributes.get("role") == "img" for tag, attributes in pictures if tag == "svg")
    assert sum(tag == "figcaption" for tag, _ in reader.elements) == 4


def test_ids_are_unique_and_references_find_them():
    html = page()
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    references = re.findall(r'(?:href="#|url\(#)([^")]+)', html)
    assert len(references) > 20
    assert set(references) <= set(ids)


def test_headings_and_landmarks_serve_readers_who_listen():
    reader = Reader(page())
    tags = [tag for tag, _ in reader.elements]
    assert tags.count("h1") == 1
    assert {"header", "nav", "main", "footer"} <= set(tags)
    assert reader.elements[0] == ("html", {"lang": "en"})
    cells = [attributes for tag, attributes in reader.elements if tag == "th"]
    assert all(attributes.get("scope") in ("col", "row") for attributes in cells)


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_text_has_enough_contrast_in_light_and_dark():
    schemes = re.findall(r":root \{(.*?)\}", page(), flags=re.DOTALL)[:2]
    for scheme in schemes:
        colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", scheme))
        for ground in ("page", "paper"):
            for text in ("ink", "soft", "accent"):
                light, dark = sorted((luminance(colors[ground]), luminance(colors[text])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ground, text)


def test_the_same_content_gives_the_same_page():
    assert page() == page()


def test_a_page_without_anything_optional_is_whole():
    html = render_page("a", "b", [], command="c", config_yaml="", versions={})
    assert Reader(html).open == []
    assert 'class="cards"' not in html
    assert 'class="warning"' not in html


def test_a_page_is_written_whole(tmp_path):
    write_page(tmp_path / "new" / "report.html", page())
    assert (tmp_path / "new" / "report.html").read_text() == page()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        (("", SVG), "needs a caption"),
        (("a", b"GIF89a"), "expected SVG text or PNG bytes"),
        (("a", "<p>no</p>"), "got <p>"),
        (("a", "no"), "not XML"),
        (("a", "<svg/>"), "viewBox"),
    ],
)
def test_what_is_no_figure_is_refused(figure, message):
    with pytest.raises(DataError, match=message):
        render_page("a", "b", [Section(title="t", figures=[figure])], command="c", config_yaml="", versions={})


def test_an_svg_loses_what_runs_or_comes_from_outside():
    found = inline_svg(
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="72pt" height="36pt" '
        'onload="a()"><style>*{color:red}</style><script>b()</script><g id="g" fill="url(#p)" stroke="url(http://x/y)"/>'
        '<image href="http://x/y.png"/><use xlink:href="#g" style="clip-path: url(#c)"/><a href="javascript:c()"/>'
        "</svg>",
        "f1-",
        label='a "label"',
        magnify=2,
    )
    assert found == (
        '<svg viewBox="0 0 72 36" role="img" aria-label="a &quot;label&quot;" '
        'style="width: 192px; min-width: 115px; stroke-linejoin: round; stroke-linecap: butt">'
        '<g id="f1-g" fill="url(#f1-p)" /><image /><use href="#f1-g" style="clip-path: url(#f1-c)" /><a /></svg>'
    )
