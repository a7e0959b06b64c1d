r"""A run as one page of HTML that needs no other file."""

import shlex
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import yaml

from pyro_aevb.estimators import ESTIMATORS, IMPORTANCE
from pyro_aevb.reports.text import (
    against_table,
    corrupted_table,
    few,
    lead,
    metrics_table,
    warnings,
)
from pyro_aevb.runs.directories import SETTINGS
from pyro_aevb.runs.run import Run

FIRST = ("history", "elbo_log_likelihood", "convergence", "reconstructions", "samples", "latent")
r"""The figures that come first; the others follow by name."""
STATED = ("num_data", "seconds", "environment")
r"""What the settings of an estimator hold beside its options."""
STYLE = """
body { max-width: 60em; margin: 2em auto; padding: 0 1em; font: 16px/1.5 sans-serif; color: #222 }
h1, p, li, td, figcaption { overflow-wrap: anywhere }
.lead { font-size: 1.25em } .warning { color: #a40000 }
table { border-collapse: collapse; margin: 1em 0 } caption { text-align: left; color: #555 }
th, td { padding: .2em .8em; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
.r { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
figure { margin: 2em 0 } img { max-width: 100% } figcaption { color: #555 }
pre { background: #f4f4f4; padding: .6em; white-space: pre-wrap; overflow-wrap: anywhere }
"""


def page_of(run: Run) -> str:
    r"""The page, in ASCII: what a pair or a file is called is text in it, and never markup.

    Raises:
        UsageError: The run has no results, or its files are damaged.
    """
    results, settings = run.results, run.settings
    title = f"{results['pair']} on {results['data']}"
    body = "\n".join([*_results(title, results), *_figures(run), *_made(run, results, settings)])
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""
    # No encoding of a file system can spoil it.
    return page.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _results(title: str, results: Mapping[str, Any]) -> Iterator[str]:
    metrics = results["metrics"]
    yield f"<h1>{escape(title)}</h1>"
    if said := lead(metrics):
        yield f'<p class="lead">{escape(said)}</p>'
    yield f"<p>{escape(results.get('data_description', ''))}</p>"
    yield _table(*metrics_table(results, few(metrics)))
    notes = [*results.get("notes", []), *warnings(metrics)]
    if notes:
        kinds = ("warning" if note.startswith("warning") else "note" for note in notes)
        items = zip(kinds, notes, strict=True)
        lines = (f'<li class="{kind}">{escape(note)}</li>' for kind, note in items)
        yield f"<ul>{''.join(lines)}</ul>"
    yield "<details><summary>All metrics</summary>"
    yield _table(*metrics_table(results, metrics))
    yield "</details>"
    for name in results.get("corrupted", {}):
        yield _table(*corrupted_table(results, name))
    for name in results.get("against", {}):
        yield _table(*against_table(results, name))


def _figures(run: Run) -> Iterator[str]:
    files = {path.stem: path for path in sorted(run.figures.glob("*.png"))}
    if files:
        yield "<h2>Figures</h2>"
    for name in dict.fromkeys([*(n for n in FIRST if n in files), *files]):
        picture, alt = b64encode(files[name].read_bytes()).decode("ascii"), escape(name)
        yield (
            f'<figure><img src="data:image/png;base64,{picture}" alt="{alt}">'
            f"<figcaption>{alt}</figcaption></figure>"
        )


def _made(run: Run, results: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    r"""What it was made with, and how to make it again."""
    yield "<h2>Settings</h2>"
    yield "<p>Those that are not here are the defaults of the pair, or of the data.</p>"
    given = [[name, _plain(value)] for name, value in settings.items() if value is not None]
    yield _table("", ("setting", "value"), "ll", given, ())
    yield "<h2>How it was made</h2>"
    said = results.get("provenance", {})
    facts = {
        "parameters": results.get("parameters"),
        "epochs": results.get("epochs"),
        **{f"seconds of {what}": value for what, value in said.get("seconds", {}).items()},
        "computed with": results.get("environment"),
        **{name: said.get(name) for name in ("version", "commit", "date")},
        "results written by": said.get("command"),
    }
    rows = [[name, str(value)] for name, value in facts.items() if value is not None]
    yield _table("", ("what", "value"), "ll", rows, ())
    yield "<h2>To make it again</h2>"
    given_by_python = [name for name, v in settings.items() if str(v).startswith("<")]
    if given_by_python:
        which = ", ".join(f"{name}={settings[name]}" for name in given_by_python)
        yield (
            f"<p>It was trained from Python, with {escape(which)}: call pyro_aevb.fit with the "
            f"settings above, and pyro_aevb.evaluate with {escape(' and '.join(given_by_python))} "
            "too.</p>"
        )
        return
    yield f"<pre>{escape(chr(10).join(commands(run, results)))}</pre>"


def commands(run: Run, results: Mapping[str, Any]) -> Iterator[str]:
    r"""Command lines that train the run again, and score the trained run as it was scored.

    Those of corruptions, and of estimators of one's own, are no command lines, and are left out.
    """
    # A directory that is called "." has no name to be called after.
    folder = run.path if run.path.name else run.path.resolve()
    path, kept = str(folder), results.get("settings", {})
    fit, evaluate = (["python", "-m", f"pyro_aevb.{name}"] for name in ("fit", "evaluate"))
    yield shlex.join([*fit, "--config", str(folder / SETTINGS), "--out", f"{path}-again"])
    flags = ("num_samples", "weight_samples", "proposal", "seed", "num_data")
    for name, settings in kept.items():
        if name not in (IMPORTANCE, *ESTIMATORS):
            continue
        options = {k: v for k, v in settings.items() if v is not None and k not in STATED}
        shown = {"num_data": settings["num_data"]} if "num_data" in settings else {}
        words = ["--estimator", name]
        if name == IMPORTANCE:
            words = []
            shown |= {flag: options.pop(flag) for flag in flags if flag in options}
        words += _flags(shown)
        if options:
            text = yaml.safe_dump(options, default_flow_style=True, width=10**6).strip()
            words += ["--estimator-options", text]
        yield shlex.join([*evaluate, path, *words])
    for name, entry in results.get("against", {}).items():
        shown = {flag: entry[flag] for flag in flags if flag in entry}
        yield shlex.join([*evaluate, path, "--against", name, *_flags(shown)])


def _flags(settings: Mapping[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        yield from (f"--{name.replace('_', '-')}", str(value))


def _plain(value: Any) -> str:
    r"""A setting as a file of settings has it, in one line."""
    if not isinstance(value, (dict, list)):
        return str(value)
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).strip()


def _table(
    title: str,
    columns: Sequence[str],
    sides: str,
    rows: Sequence[Sequence[str]],
    notes: Sequence[str],
) -> str:
    def row(tag: str, cells: Sequence[str]) -> str:
        sided = zip(cells, sides, strict=True)
        return "".join(
            f"<{tag}{' class=r' * (side == 'r')}>{escape(cell)}</{tag}>" for cell, side in sided
        )

    head = f"<caption>{escape(title)}</caption>" if title else ""
    body = "".join(f"<tr>{row('td', cells)}</tr>" for cells in rows)
    table = (
        f"<table>{head}<thead><tr>{row('th', columns)}</tr></thead><tbody>{body}</tbody></table>"
    )
    return table + "".join(f"<p>{escape(note)}</p>" for note in notes)
