"""What the study of questions to autoencoders is made of: PCA by NumPy, and its figures."""

import numpy as np
import pytest
from scipy.special import xlogy

from pyro_aevb.data import load
from pyro_aevb.errors import UsageError
from pyro_aevb.studies import figures
from pyro_aevb.studies.linear_codes import EDGE, pca_reconstruction
from pyro_aevb.studies.shipped.autoencoder_questions import MOVES, ONLY, STUDY
from pyro_aevb.studies.study import study


def test_principal_components_are_those_of_numpy(tmp_path):
    data = load("digits")
    train, test = (
        split.images.flatten(1).double().numpy() / split.scale for split in (data.train, data.test)
    )
    mean = train.mean(0)
    components = np.linalg.svd(train - mean, full_matrices=False)[2][:5]
    y = mean + (test - mean) @ components.T @ components
    run = pca_reconstruction("digits", 5, out=str(tmp_path / "pca"))
    metrics = run.results["metrics"]
    assert metrics["rmse"]["value"] == pytest.approx(np.sqrt(((test - y) ** 2).mean()), rel=1e-4)
    inside = y.clip(EDGE, 1 - EDGE)
    nats = (xlogy(test, inside) + xlogy(1 - test, 1 - inside)).sum(1)
    assert metrics["reconstruction"]["value"] == pytest.approx(nats.mean(), rel=1e-4)
    error = nats.std(ddof=1) / np.sqrt(len(nats))
    assert metrics["reconstruction"]["standard_error"] == pytest.approx(error, rel=1e-3)
    for wrong in (0, 65):
        with pytest.raises(UsageError, match="must lie between 1 and 64"):
            pca_reconstruction("digits", wrong, out=str(tmp_path / "wrong"))


def test_one_factor_moves_at_a_time():
    base = {c.column: c for c in STUDY.cells("full", 1) if c.row == "base, N_z = 2"}
    assert len(base) == 5
    for cell in STUDY.cells("full", 1):
        if cell.grid != "factors" or not cell.row.endswith("N_z = 2"):
            continue
        (move,) = (m for m in MOVES if cell.row == f"{m}, N_z = 2")
        assert cell.column in ONLY.get(move, base)
        moved = {k for k in cell.settings if cell.settings[k] != base[cell.column].settings.get(k)}
        parameters = (c.settings["pair_parameters"] for c in (cell, base[cell.column]))
        one, other = parameters
        changed = {k for k in one if one[k] != other.get(k)}
        assert bool(moved) == (move != "base")
        assert moved - {"pair_parameters"} <= {*MOVES[move]} and changed <= {
            *MOVES[move].get("pair_parameters", {}),
            "discriminator_hidden",
        }


def test_the_smoke_scale_draws_its_figures(tmp_path, monkeypatch):
    shown = {}
    real_rows, real_curves = figures.panels.image_rows, figures.panels.curves
    monkeypatch.setattr(
        figures.panels, "image_rows", lambda rows, path: shown.update(rows) or real_rows(rows, path)
    )
    lines = {}
    monkeypatch.setattr(
        figures.panels,
        "curves",
        lambda panels, *a, **k: lines.update(panels[""]) or real_curves(panels, *a, **k),
    )
    cells = ["compression-linear", "content-and-style/N_z = 2/VAE*"]
    for only in cells:
        study(
            "autoencoder_questions",
            scale="smoke",
            only=only,
            out=str(tmp_path / "out"),
            show=False,
        )
    (x, values) = lines["PCA"]
    assert x.tolist() == [2, 8] and values.shape == (1, 2) and values[0, 1] < values[0, 0]
    names = [f"VAE, given labels, {row}" for row in range(1, 7)]
    assert [name for name in shown] == names
    assert all(images.shape == (10, 1, 8, 8) for images in shown.values())
