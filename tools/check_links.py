"""Check that every relative link in the Markdown files leads to a file, and every anchor to a heading."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", CODE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def problems(page: Path) -> list[str]:
    """Return what is wrong with the links of one page."""
    found = []
    for target in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        if not other.exists():
            found.append(f"{page.relative_to(ROOT)}: {target}: no such file")
        elif anchor and other.suffix == ".md" and anchor not in anchors(other.read_text(encoding="utf-8")):
            found.append(f"{page.relative_to(ROOT)}: {target}: no such heading")
    return found


def main() -> int:
    """Print every broken link."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.md"), *ROOT.glob("examples/**/*.md")]
    found = [line for page in pages if ".venv" not in page.parts for line in problems(page)]
    sys.stdout.write("".join(f"{line}\n" for line in found) or f"links of {len(pages)} pages: all good\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
