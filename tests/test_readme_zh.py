"""The Chinese README says what the English one says: the same code, commands, links, tables and headings."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENGLISH, CHINESE = "README.md", "README.zh-CN.md"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"(^|\s+)#(?!\d).*$")
_LINK = re.compile(r"\]\(([^)\s]+)[^)]*\)")
_SPAN = re.compile(r"`([^`\n]+)`")


def code_blocks(text: str) -> list[tuple[str, list[str]]]:
    """Language and lines of each block, without comments: those are translated."""
    return [
        (tag, [_COMMENT.sub("", line).rstrip() for line in body.splitlines()]) for tag, body in _FENCE.findall(text)
    ]


def prose(text: str) -> str:
    return _FENCE.sub("", text)


def headings(text: str) -> list[int]:
    """Level of each heading, in order."""
    return [len(marks) for marks in re.findall(r"^(#+) ", prose(text), re.MULTILINE)]


def links(text: str) -> Counter[str]:
    """Targets of links and pictures, in any order; the link to the other language is the same on both pages."""
    targets = _LINK.findall(prose(text))
    return Counter("the other language" if target in (ENGLISH, CHINESE) else target for target in targets)


def spans(text: str) -> Counter[str]:
    """Commands and names in the text, in any order."""
    return Counter(_SPAN.findall(prose(text)))


def first_columns(text: str) -> list[list[str]]:
    """First cells below the head of each table."""
    tables = re.findall(r"(?:^\|.*\|[ ]*\n?)+", prose(text), re.MULTILINE)
    return [[row.split("|")[1].strip() for row in table.strip().splitlines()[2:]] for table in tables]


PARTS = {
    "code blocks": code_blocks,
    "headings": headings,
    "links": links,
    "names and commands": spans,
    "first columns of tables": first_columns,
}


def differences(first: str, second: str) -> list[str]:
    """Names of the parts in which two pages differ."""
    return [name for name, part in PARTS.items() if part(first) != part(second)]


@pytest.mark.parametrize("name", PARTS)
def test_both_readmes_have_the_same(name: str) -> None:
    english, chinese = ((ROOT / page).read_text(encoding="utf-8") for page in (ENGLISH, CHINESE))
    assert PARTS[name](chinese) == PARTS[name](english)


def untranslated(text: str) -> list[str]:
    """Paragraphs with a sentence of English (six words or more) and nothing in Chinese."""
    plain = re.sub(r"`.*?`|\(.*?\)", "", prose(text), flags=re.DOTALL)
    paragraphs = [part for part in plain.split("\n\n") if len(re.findall(r"[A-Za-z]{2,}", part)) > 5]
    return [part for part in paragraphs if not re.search(r"[\u4e00-\u9fff]", part)]


def test_the_chinese_readme_is_translated() -> None:
    assert untranslated((ROOT / CHINESE).read_text(encoding="utf-8")) == []
    assert untranslated((ROOT / ENGLISH).read_text(encoding="utf-8"))


PAGE = """# Title

Run `make demo`, see [docs](docs/a.md). [other](README.md)

```bash
make demo   # a comment
# a line of it
gridloom check etopo20
```

| name | meaning |
|---|---|
| `a` | first |
| b | second |

## End
"""


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("gridloom check etopo20", "gridloom check coads", "code blocks"),
        ("```bash", "```text", "code blocks"),
        ("# a line of it\n", "", "code blocks"),
        ("make demo   #", "make  demo   #", "code blocks"),
        ("## End", "### End", "headings"),
        ("## End", "", "headings"),
        ("(docs/a.md)", "(docs/b.md)", "links"),
        ("[other](README.md)", "", "links"),
        ("Run `make demo`", "Run `make test`", "names and commands"),
        ("| b | second |\n", "", "first columns of tables"),
        ("| b | second |", "| c | second |", "first columns of tables"),
    ],
)
def test_a_difference_is_found(old: str, new: str, part: str) -> None:
    assert differences(PAGE, PAGE.replace(old, new, 1)) == [part]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# a comment", "# 注释"),
        ("# a line of it", "# 一行"),
        ("Run `make demo`, see [docs](docs/a.md)", "见[文档](docs/a.md)，运行 `make demo`"),
        ("(README.md)", "(README.zh-CN.md)"),
        ("| name | meaning |", "| 名称 | 含义 |"),
        ("| first |", "| 第一 |"),
        ("## End", "## 结束"),
    ],
)
def test_translation_is_no_difference(old: str, new: str) -> None:
    assert differences(PAGE, PAGE.replace(old, new, 1)) == []
