"""The notebooks of the documentation: all cells run at a small size, and outputs are stored."""

import json
import re
from pathlib import Path

import matplotlib.pyplot
import pytest

import pyro_aevb
from pyro_aevb.reports.redraw import NAMES

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
FEW = {"num_samples": 30, "num_data": 10, "proposal": "guide"}
SMALL = {
    "digits": dict(
        DATA="digits:200", EPOCHS=1, HIDDEN=[10], SCORE=FEW | {"weight_samples": 2}, WEIGHT_DRAWS=3
    ),
    "counts": dict(
        CELLS=100, GENES=5, EPOCHS=1, IMAGE_EPOCHS=1, SCORE=FEW, LOO_DRAWS=20, LOO_DATA=5
    ),
    "audit": dict(
        DATA="digits:200",
        EPOCHS=1,
        NUM_DATA=4,
        DRAWS=[30],
        PRIOR_DRAWS=30,
        ANNEALING={"num_temperatures": 3, "num_chains": 2},
        RECIPROCAL={
            "num_samples": 8,
            "num_chains": 2,
            "num_temperatures": 3,
            "burn_in": 2,
            "between": 1,
        },
        PROPOSAL="guide",
    ),
}
"""What stands in the place of the cell of parameters."""
MACHINE_PATH = re.compile(r"""["'\s](/|~/|[A-Za-z]:\\\\)\w""")
notebooks = pytest.mark.parametrize("name", SMALL)


def source(cell):
    return "".join(cell["source"])


def code_cells(name):
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_every_notebook_is_tested():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SMALL)


@notebooks
def test_the_cells_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The figures of runs have tests of their own, and take most of the time.
    monkeypatch.setattr("pyro_aevb.reports.assess.draw_figures", lambda *_: [])
    monkeypatch.setattr(pyro_aevb.Run, "plot", lambda run, name: drawn.append(name))
    drawn, found = [], {"__name__": "notebook"}
    matplotlib.use("Agg")
    parameters, *cells = code_cells(name)
    assert parameters["metadata"]["tags"] == ["parameters"]
    exec(source(parameters), set_there := {})
    assert set(set_there) - {"__builtins__"} == set(SMALL[name])
    found |= SMALL[name]
    for number, cell in enumerate(cells, 2):
        exec(compile(source(cell), f"{name}.ipynb, code cell {number}", "exec"), found)
    matplotlib.pyplot.close("all")
    assert set(drawn) <= set(NAMES)


@notebooks
def test_outputs_of_one_run_from_start_to_end_are_stored(name):
    cells = code_cells(name)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert "pyro-ppl" in "".join(cells[-1]["outputs"][0]["text"])  # the machine and the versions
    assert not MACHINE_PATH.search(json.dumps([source(cell) for cell in cells]))
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 600_000


def test_the_session_of_the_index_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pyro_aevb.reports.assess.draw_figures", lambda *_: [])
    (session,) = re.findall(r"```python\n(.*?)```", (FOLDER.parent / "index.md").read_text(), re.S)
    quick = 'epochs=1, num_samples=2, proposal="guide", num_data=5, show=False'
    exec(session.replace("mnist5k", "digits:200").replace("epochs=20", quick), {})
