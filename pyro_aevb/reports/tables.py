r"""Tables of runs: their cells, and files: CSV with every digit, Markdown and LaTeX as printed."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pyro_aevb.reports.settings import written
from pyro_aevb.reports.text import counts, value_of, with_error

SHOWN = (
    *("elbo", "iwae_bound", "log_likelihood", "gap", "reconstruction", "reconstruction_mean", "kl"),
    "active_units",
)
FEW = ("elbo", "iwae_bound", "log_likelihood", "reconstruction", "kl", "active_units")
r"""Of these the ones that a terminal shows of many runs."""
FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20\t\r\n"
r"""What a cell begins with that a spreadsheet computes, unless it is a number."""
MARKUP = re.compile(
    r"[\\\[\]`*#~]|\b_(?!\w)|(?<!\w)_|://|(?<=www)\.|^[-+](?=\s|$)|^[-=]+$",
    re.IGNORECASE,
)
r"""What Markdown makes something of, links without brackets and lists among them."""
NUMBERED = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")
r"""What begins a numbered list."""
ADDRESS = re.compile(r"(?<=\S)@(?=\S)")
r"""What makes an address of mail, which no backslash hides."""
ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
CLASSIFIED = ("classification_error", "calibration_error")
r"""What is shown of classifiers, in per cent."""


def rows_of(table: Mapping[str, Any]) -> list[list[str]]:
    r"""The cells of the table, a row for each quantity."""
    others = dict.fromkeys(
        name for row in table.values() for name, m in row["metrics"].items() if "estimator" in m
    )
    rows = []
    classified = [m for m in CLASSIFIED if any(m in row["metrics"] for row in table.values())]
    for metric in (*classified, *SHOWN, *others):
        rows.append([metric, *(_cell(metric, row["metrics"]) for row in table.values())])
        if any(metric in row["paired"] for row in table.values()):
            _, *after = (with_error(row["paired"].get(metric, {})) for row in table.values())
            rows.append([f"{metric} difference", "reference", *after])
        p_values = [row["paired"].get(metric, {}).get("p_value") for row in table.values()]
        if any(p is not None for p in p_values):
            written = ["" if p is None else f"{p:.2g}" for p in p_values]
            rows.append([f"{metric} p-value", *written])
    if any("weight" in row for row in table.values()):
        weights = [f"{row['weight']:.2f}" if "weight" in row else "" for row in table.values()]
        rows.append(["weight", *weights])
    for label in dict.fromkeys(label for row in table.values() for label in row["corrupted"]):
        entries = [row["corrupted"].get(label, {"metrics": {}}) for row in table.values()]
        for metric in ("reconstruction", "elbo"):
            cells = [_cell(metric, entry["metrics"]) for entry in entries]
            if set(cells) - {"", "not defined"}:
                rows.append([f"{metric}, {label}", *cells])
    rows.append(["parameters", *(f"{row['parameters']:,}" for row in table.values())])
    seconds = [row["seconds_per_epoch"] for row in table.values()]
    rows.append(["seconds per epoch", *("" if s is None else f"{s:.3g}" for s in seconds)])
    rows.append(["samples", *(counts(row["metrics"]["elbo"]) for row in table.values())])
    return rows


def _cell(name: str, metrics: Mapping[str, Any]) -> str:
    if name in metrics and value_of(metrics, name) is None:
        return "not defined"
    metric = metrics.get(name, {})
    if "latent_dim" in metric:
        return f"{metric['value']} of {metric['latent_dim']}"
    return with_error(metric)


def settings_rows(
    table: Mapping[str, Any], by: str, few: bool = False
) -> tuple[list[str], list[list[str]]]:
    r"""Columns and cells of the table with a row for each setting, the best one first.

    Arguments:
        table: See :func:`~pyro_aevb.reports.comparison.side_by_side`.
        by: The metric that orders it.
        few: The quantities that matter most alone.
    """
    by_place: dict[int, Any] = {}
    for row in table.values():
        by_place.setdefault(row["setting"]["place"], row)
    ordered = [by_place[place] for place in sorted(by_place)]
    of = [row["setting"] for row in ordered]
    columns = {"run": [_called(one["runs"]) for one in of]}
    columns |= {name: [written(one["settings"][name]) for one in of] for name in of[0]["settings"]}
    repeated = any(len(one["runs"]) > 1 for one in of)
    if repeated:
        columns["seeds"] = [str(len(one["runs"])) for one in of]
    columns[by] = [_over(one["metrics"].get(by, {})) for one in of]
    if repeated:
        columns["spread"] = [_number(one["metrics"].get(by, {}).get("spread")) for one in of]
    columns["difference"] = [with_error(one["paired"].get(by, {})) for one in of]
    columns["difference"][0] = "reference"
    if repeated:
        columns["± seeds"] = [_number(one["paired"].get(by, {}).get("seeds_error")) for one in of]
    shown = (*CLASSIFIED, *FEW) if few else (*CLASSIFIED, *SHOWN)
    others = [] if few else [n for row in ordered for n in _of_others(row)]
    for name in dict.fromkeys((*shown, *others)):
        cells = [_over(one["metrics"].get(name, {})) for one in of]
        if name != by and any(cells):
            columns[name] = cells
    columns["parameters"] = [f"{row['parameters']:,}" for row in ordered]
    seconds = [row["seconds_per_epoch"] for row in ordered]
    columns["s per epoch"] = ["" if s is None else f"{s:.3g}" for s in seconds]
    return [*columns], [list(cells) for cells in zip(*columns.values(), strict=True)]


def _of_others(row: Mapping[str, Any]) -> list[str]:
    r"""What other estimators found, and what was found under corruptions."""
    seen = [f"{name}, {label}" for label in row["corrupted"] for name in ("reconstruction", "elbo")]
    return [name for name, metric in row["metrics"].items() if "estimator" in metric] + seen


def _called(runs: Sequence[str]) -> str:
    return runs[0] + (f" and {len(runs) - 1} more" if len(runs) > 1 else "")


def _over(metric: Mapping[str, Any]) -> str:
    if "latent_dim" in metric:
        return f"{metric['value']:.3g} of {metric['latent_dim']}"
    return with_error(metric)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def over_seeds_tables(table: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    r"""For each group of repetitions a title, columns and rows."""
    groups = {}
    for row in table.values():
        if "over_seeds" in row:
            group = row["over_seeds"]
            title = f"over {len(group['runs'])} training seeds: {', '.join(group['runs'])}"
            groups[title] = [
                [name, f"{metric['value']:.2f}", f"{metric['spread']:.2f}"]
                for name, metric in group["metrics"].items()
            ]
    columns = ["quantity", "mean", "standard deviation over seeds"]
    return [(title, columns, rows) for title, rows in groups.items()]


def numbers_of(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    r"""A row of numbers for each run, with every digit."""
    rows = []
    for name, row in table.items():
        numbers: dict[str, Any] = {"run": name}
        numbers |= {k: written(value) for k, value in row["setting"]["settings"].items()}
        corrupted = {f", {label}": entry["metrics"] for label, entry in row["corrupted"].items()}
        for ending, metrics in {"": row["metrics"], **corrupted}.items():
            for metric, entry in metrics.items():
                numbers[metric + ending] = entry["value"]
                if "standard_error" in entry:
                    numbers[f"{metric}{ending} standard_error"] = entry["standard_error"]
        for metric, entry in row["paired"].items():
            numbers[f"{metric} difference"] = entry["value"]
            numbers[f"{metric} difference standard_error"] = entry["standard_error"]
            if "p_value" in entry:
                numbers[f"{metric} difference p_value"] = entry["p_value"]
        numbers |= {name: row[name] for name in ("parameters", "seconds_per_epoch")}
        if "weight" in row:
            numbers["weight"] = row["weight"]
        rows.append(numbers)
    return rows


def markdown_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> str:
    r"""A table in Markdown, with a title above and notes below."""

    def line(entries: Sequence[str]) -> str:
        return "| " + " | ".join(entry.replace("|", r"\|") for entry in entries) + " |"

    lines = [title, "", line(columns), "|---" + "|--:" * (len(columns) - 1) + "|"]
    lines += [*map(line, rows), *([""] if notes else []), *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def literal_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> str:
    r"""A table in Markdown of words that somebody else chose, such as names of runs and pairs: they
    stand there as they are, and make no HTML, link, code or line.
    """
    words = [[*map(_literal, line)] for line in ([title], columns, notes)]
    return markdown_table(words[0][0], words[1], [[*map(_literal, row)] for row in rows], words[2])


def latex_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> str:
    r"""A table in LaTeX, with the rules of the ``booktabs`` package and notes below; the title is
    a comment.
    """
    lines = [
        f"% {' '.join(title.split())}",
        r"\begin{tabular}{l" + "r" * (len(columns) - 1) + "}",
        r"\toprule",
        " & ".join(map(_latex, columns)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_latex, row)) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\noindent{{\footnotesize {_latex(note)}}}" for note in notes),
    ]
    return "\n".join(lines) + "\n"


def csv_table(rows: Sequence[Mapping[str, Any]]) -> str:
    r"""Rows of named values; a column for every name in any of them, empty where it is not.

    Words that a spreadsheet would take for a formula have an apostrophe before them.
    """
    text = io.StringIO()
    named = [{_word(name): _word(value) for name, value in row.items()} for row in rows]
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in named for name in row)))
    writer.writeheader()
    writer.writerows(named)
    return text.getvalue()


def _word(value: Any) -> Any:
    r"""A word that no spreadsheet takes for a formula; what else there is, as it is."""
    if not isinstance(value, str):
        return value
    begins = {value[:1], value.lstrip()[:1]} - {""}
    harmless = begins.isdisjoint(FORMULA) or _is_number(value)
    return value if harmless else "'" + value


def _is_number(value: str) -> bool:
    r"""Whether a word is a number, one with its error, or several of them."""
    if value[0] == "+":  # which would be shown without it
        return False
    try:
        return all(float(part) == float(part) for part in re.split(r"\s*[;,±]\s*", value))
    except ValueError:
        return False


def _literal(cell: str) -> str:
    plain = MARKUP.sub(r"\\\g<0>", " ".join(cell.split())).translate(ENTITIES)
    plain = NUMBERED.sub(r"\1\\\2", plain)
    return ADDRESS.sub("\u2060@", plain)  # a joiner of no width, before which no name ends


_ESCAPED = str.maketrans(
    {c: "\\" + c for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"±": r"$\pm$", "▲": r"$\triangle$", "▼": r"$\triangledown$"}
)


def _latex(cell: str) -> str:
    if re.fullmatch(r"-[\d.,]+( ± [\d.,]+)?", cell):
        return "$" + cell.replace(" ± ", r" \pm ") + "$"
    return cell.translate(_ESCAPED)
