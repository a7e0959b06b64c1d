r"""Tables with a name for each column, as arrays: the data, and what stands beside them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from pyro_aevb.data.naming import LABELS, NUMBERED, SPLIT
from pyro_aevb.errors import UsageError

FEATURES = "feature_names"
r"""The array of what the components of a datum are called."""

DECIMAL = r"^(\s*[-+]?\d*),(\d+(?:[eE][-+]?\d+)?\s*)$"
r"""A number with a decimal comma, and no other comma."""

LEFT_OUT = "left_out"
r"""The array of what columns were passed over."""


def arrays_of(table: Any, path: Path) -> dict[str, np.ndarray]:
    r"""The arrays of a data frame by name.

    Where some columns are called ``x1``, ``x2`` and so on, these are the data, and the other
    columns of numbers stand beside them by their names; else all columns of numbers are the data
    ``x``, in their order. Columns called ``label`` (or ``y``, ``target``) and ``split`` never are.
    A first column without a name that counts the rows is passed over, and so are words and dates,
    whose names are in ``left_out``.

    Arguments:
        table: A :class:`pandas.DataFrame`.
        path: Where it is from.

    Raises:
        UsageError: There is no column of numbers.
    """
    names = [str(name) for name in table.columns]
    table = table.set_axis(names, axis=1)
    if names and re.fullmatch(r"Unnamed: 0|", names[0]):
        first = table[names[0]].to_numpy()
        if np.array_equal(first, np.arange(len(table))):
            table, names = table.iloc[:, 1:], names[1:]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{path} has two columns {name!r}; give each a name of its own")
    beside = [name for name in names if name.lower() in LABELS | {SPLIT}]
    for name in beside:
        if name.lower() == SPLIT and table[name].isna().any():
            row = int(table[name].isna().to_numpy().argmax())
            raise UsageError(f"{path}: the column {name!r} has nothing in row {row}; fill it in")
    numbers = [name for name in names if name not in beside and _is_number(table[name])]
    data = [name for name in numbers if NUMBERED.fullmatch(name)] or numbers
    if not data:
        raise UsageError(
            f"{path} has no column of numbers besides {', '.join(beside) or 'its words'}; "
            "the data are what the columns of numbers hold"
        )
    found = {"x": _together(table[data]), FEATURES: np.array(data)}
    for name in (*beside, *(name for name in numbers if name not in data)):
        found[name] = _column(table[name])
    left = [name for name in names if name not in beside + numbers]
    return found | ({LEFT_OUT: np.array(left)} if left else {})


def read_csv(path: Path) -> Any:
    r"""The data frame of a text, whose separator is what its first line has most of: ``, ; tab``.

    A first line of numbers alone is a row, and no names. A column of numbers may have ``?`` where
    one is missing, and decimal commas where the separator is no comma.
    """
    import pandas

    with path.open(encoding="utf-8-sig") as file:
        first = file.readline().strip()
    mark = max(",;\t", key=first.count)
    for other in ";\t":  # decimal commas may be more than the separators
        if other in first and all(re.match(DECIMAL, cell) for cell in first.split(other)):
            mark = other
    cells = [cell.strip(' "') for cell in first.split(mark)]
    if mark != ",":
        cells = [re.sub(DECIMAL, r"\1.\2", cell) for cell in cells]
    header = None if all(map(_reads_as_number, cells)) else "infer"
    table = pandas.read_csv(path, sep=mark, header=header, encoding="utf-8-sig")
    for place in range(table.shape[1]):
        column = table.iloc[:, place]
        if _is_number(column) or column.isna().all():
            continue
        words = column.where(column.ne("?")).astype(object)
        if mark != ",":
            words = words.str.replace(DECIMAL, r"\1.\2", regex=True)
        numbers = pandas.to_numeric(words, errors="coerce")
        if numbers.notna().any() and bool((numbers.isna() == words.isna()).all()):
            table[table.columns[place]] = numbers
    return table


def _reads_as_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True


def _is_number(column: Any) -> bool:
    return getattr(column.dtype, "kind", "O") in "biuf"


def _column(column: Any) -> np.ndarray:
    if _is_number(column):
        return _together(column)
    return column.astype(str).where(~column.isna(), "").to_numpy(str)


def _together(columns: Any) -> np.ndarray:
    # whole numbers stay so where none is missing; pandas has types of its own for those that are
    kinds = {d.kind for d in (columns.dtypes if columns.ndim > 1 else [columns.dtype])}
    real = "f" in kinds or bool(np.any(columns.isna()))
    array: np.ndarray = columns.to_numpy(np.float64 if real else np.int64)
    return array
