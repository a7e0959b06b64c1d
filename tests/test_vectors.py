"""Vectors in pictures: each component's panel shows its own numbers; correlations by SciPy."""

import numpy as np
import pytest
from scipy import stats

from pyro_aevb.reports import plots

pytestmark = pytest.mark.usefixtures("rendered")

NAMES = [f"x[{j}]" for j in range(30)]


def test_what_is_predicted_stands_over_what_was_observed(tmp_path, drawn):
    rng = np.random.default_rng(0)
    observed = rng.normal(size=(40, 30)) * np.linspace(0.1, 3, 30)
    predicted = 0.5 * observed + 0.1 * rng.normal(size=(40, 30))
    observed[3, 29] = np.nan
    plots.observed_against_predicted(observed, predicted, tmp_path / "r.png", NAMES, "its $mode")
    panels = drawn[0].axes
    known = np.nanvar(observed, axis=0)
    assert [axes.get_title().split(",")[0] for axes in panels] == [
        NAMES[j] for j in sorted(np.argsort(-known)[:12])
    ]
    last = panels[-1]
    rows = np.arange(40) != 3
    x, y = observed[rows, 29], predicted[rows, 29]
    np.testing.assert_array_equal(last.collections[0].get_offsets(), np.stack([x, y], 1))
    assert last.get_title() == f"x[29], r = {stats.pearsonr(x, y).statistic:.2f}"
    assert last.get_xlim() == last.get_ylim() and last.get_aspect() == 1
    said = "observed, 40 data; the 12 of 30 components that vary most"
    assert drawn[0].get_supxlabel() == said and drawn[0].get_supylabel() == r"its \$mode"


def test_the_weights_deviation_is_a_bar_of_twice_its_length(tmp_path, drawn):
    observed, predicted, spread = np.random.default_rng(0).normal(size=(3, 9, 2))
    told = ["a", "b"], "reconstruction", abs(spread)
    plots.observed_against_predicted(observed, predicted, tmp_path / "r.png", *told)
    for j, axes in enumerate(drawn[0].axes):
        (bars,) = (c for c in axes.collections if hasattr(c, "get_segments"))
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        np.testing.assert_allclose(ends.mean(1), predicted[:, j])
        np.testing.assert_allclose(ends[:, 1] - ends[:, 0], 2 * abs(spread[:, j]))
    assert drawn[0].get_supylabel() == "reconstruction, ± s.d. over weights"


@pytest.mark.parametrize("observed", [np.ones((1, 1)), np.full((2, 1), np.nan)])
def test_a_single_or_a_missing_component_has_no_correlation(observed, tmp_path, drawn):
    plots.observed_against_predicted(observed, np.ones_like(observed), tmp_path / "a.png", NAMES)
    plots.distributions(observed, np.ones_like(observed), tmp_path / "b.png", NAMES, "draws")
    assert [figure.axes[0].get_title() for figure in drawn] == ["x[0]", "x[0]"]


def test_shares_are_of_all_data_and_draws_and_what_lies_beyond_is_said(tmp_path, drawn):
    data = np.array([0, 1, 1, 2, np.nan])[:, None] + np.array([0, 0.25])
    draws = np.array([0, 0, 2, 9])[:, None] + np.array([0, 0.25])
    plots.distributions(data, draws, tmp_path / "d.png", NAMES, "draws of p(x|z)")
    whole, parts = drawn[0].axes
    assert whole.get_title() == parts.get_title().replace("[1]", "[0]")
    assert whole.get_title() == "x[0] (25 % of draws beyond)"
    seen, of_draws = (patch.get_path().vertices for patch in whole.patches)
    for shares, corners in (([0.25, 0.5, 0.25], seen), ([0.5, 0, 0.25], of_draws)):
        for value, share in enumerate(shares):  # a bin for each whole number
            height = max(y for x, y in corners if abs(x - value) <= 0.5) if share else 0
            assert height >= share and [value - 0.5, share] in corners.tolist()
    assert [t.get_text() for t in drawn[0].legends[0].get_texts()] == [
        "test data",
        "draws of p(x|z)",
    ]


def test_components_along_a_walk_are_those_that_move_most(tmp_path, drawn):
    rng, values = np.random.default_rng(0), np.linspace(-3, 3, 5)
    curves = rng.normal(size=(3, 5, 30)) * np.linspace(3, 0.1, 30)
    labels, told = ["u[4]", "u[0]", "u[$]"], ("means of p(x|u)", "value of the latent dimension")
    plots.responses(curves, values, tmp_path / "w.png", labels, NAMES, *told)
    panels = [axes for axes in drawn[0].axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == ["u[4]", "u[0]", r"u[\$]"]
    chosen = sorted(np.argsort(-np.ptp(curves, 1).max(0))[:8])
    for axes, walk in zip(panels, curves, strict=True):
        assert [line.get_label() for line in axes.lines] == [NAMES[j] for j in chosen]
        for line, j in zip(axes.lines, chosen, strict=True):
            np.testing.assert_array_equal(line.get_data(), [values, walk[:, j]])
    assert "8 of 30 that move most" in " ".join(drawn[0].get_supylabel().split())
