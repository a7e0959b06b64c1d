r"""Names that would be something else where they are shown: HTML, links, formulas, lines."""

import csv
import html.parser
import io
import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt

from benchmarks.faults import runs
from benchmarks.faults.child import command, run
from benchmarks.faults.report import Failure

NAMES = (
    *("<img src=x onerror=alert(1)>", "<script>alert(1)", "[a](javascript:alert(1))", "a|b|c"),
    *("a\nb", "a\r\n\\input{x}", "https:..evil.example", "=1+1", "@SUM(1)", "+1", "-cmd", "`a`"),
    *(
        "\\input{x}",
        "%a",
        "$a$",
        "a&b",
        "_a_",
        "![a](x)",
        "a\tb",
        '"a"',
        "'a'",
        "<b>",
        "&lt;",
        "{{a}}",
        "a[red]b",
        "[b]x",
        ":smile:",
        "www.evil.example",
        "a@b.co",
        "# big",
        "> q",
        "1. a",
        "- a",
        "~~s~~",
        "- 1+cmd|'calc'!A0",
        "-1-2",
        "-1%",
        "\uff1d1+1",
        " =1+1",
    ),
)
r"""Names of runs."""
LONG = 20
r"""A name that a table in a terminal may break into two lines."""
PLAIN = {"p", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "hr"}
r"""What the tables are made of."""
LINK = re.compile(r"(?<![\w\\])www\.|(?<!\\)://|[\w.+-]@\w")
r"""What GitHub makes links of."""


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.append(tag)


def tried(where: Path) -> Iterator[Failure | None]:
    r"""Compare runs of such names, and look at each table; yields what is wrong, or None."""
    runs.made(runs.fit("SVI", "kept", True), where)
    for name, other in itertools.product(NAMES, ("two", "=2")):
        folder = where / "named"
        shutil.rmtree(folder, ignore_errors=True)
        for run_name in (name, other):
            shutil.copytree(where / "kept", folder / run_name)
        for suffix in (".md", ".csv", ".tex"):
            words = [runs.COMPARE, name, other, "--out", "table", "--export", f"t{suffix}"]
            if name.startswith(("-", " ")):
                words[1] = f"./{name}"
            outcome = run(command(words), folder)
            what = f"a run called {name!r} in {suffix}"
            if outcome.status != 0:
                yield Failure(what, outcome.said()) if not outcome.tidy else None
                continue
            found = _wrong(folder / f"t{suffix}") or _wrong(folder / "table" / "comparison.md")
            if not found and name.isprintable() and len(name) < LONG and name not in outcome.out:
                found = f"another name in the terminal: {outcome.out[:200]!r}"
            yield Failure(what, found) if found else None


def _wrong(path: Path) -> str:
    text = path.read_text()
    if path.suffix == ".csv":
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        bad = [cell for cell in cells if _computed(cell)]
        return f"a formula: {bad[0]}" if bad else ""
    if path.suffix == ".tex":
        first = text.splitlines()
        return "" if first[1].startswith(r"\begin{tabular}") else f"a line of its own: {first[1]}"
    tags = _Tags()
    tags.feed(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))
    if other := set(tags.found) - PLAIN:
        return f"a tag: {other.pop()}"
    if found := LINK.search(text):
        return f"a link: {found[0]}"
    table = [line for line in text.splitlines() if line.startswith("|")]
    cells = {line.replace(r"\|", "").count("|") for line in table}
    return "" if len(cells) == 1 else "rows of several lengths"


def _computed(cell: str) -> bool:
    r"""Whether a spreadsheet may compute a cell."""
    if not cell.strip() or cell.strip()[0] not in "=+-@\uff1d\uff0b\uff0d\uff20":
        return False
    numbers = re.fullmatch(r"-?[\d.]+(e[-+]?\d+)?( ± [\d.]+)?", cell.strip())
    return numbers is None
