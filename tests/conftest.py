"""What every test starts from."""

import os
from unittest.mock import patch

# Of the commands that tests start, too: several tests run at a time.
os.environ["OMP_NUM_THREADS"] = "1"

import pyro
import pytest
import torch
from harness import dot, rendering
from matplotlib.figure import Figure

from pyro_aevb.estimators import spot_check

TEMPERATURES = spot_check.TEMPERATURES


@pytest.fixture(autouse=True, scope="session")
def _figures_as_dots():
    """To draw the figures is half of a score: a dot is written, of bytes that tell them apart."""
    with patch.object(Figure, "savefig", lambda figure, file, **how: file.write(dot(figure))):
        yield


@pytest.fixture(autouse=True, scope="session")
def _short_spot_checks():
    """Annealing is a third of a score. Its own tests give it all its temperatures (tempered)."""
    with patch.object(spot_check, "TEMPERATURES", 5):
        yield


@pytest.fixture
def tempered():
    """The spot check of scores is that of the package."""
    with patch.object(spot_check, "TEMPERATURES", TEMPERATURES):
        yield


@pytest.fixture
def rendered():
    """What is written are the figures, for tests that look at pictures."""
    with rendering():
        yield


@pytest.fixture(autouse=True, scope="session")
def _record_of_trust(tmp_path_factory):
    os.environ["PYRO_AEVB_TRUSTED"] = str(tmp_path_factory.mktemp("trusted"))


@pytest.fixture(autouse=True)
def _fresh_process():
    torch.set_num_threads(1)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, in order."""
    from pyro_aevb.reports.plots import canvas

    figures, save = [], canvas.save
    monkeypatch.setattr(canvas, "save", lambda f, path: figures.append(f) or save(f, path))
    return figures
