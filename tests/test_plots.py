"""Figures show the data they were given: in the PNG where pixels say it, else in the artists."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from harness import dot
from matplotlib.image import imread
from scipy import stats

from pyro_aevb.reports import plots
from pyro_aevb.reports.plots import canvas, panels
from pyro_aevb.reports.walks import along_columns, between

pytestmark = pytest.mark.usefixtures("rendered")


def picture(path):
    """The pixels of the picture inside a figure: rows and columns that are mostly not white."""
    pixels = imread(path)[..., :3]
    ink = (pixels < 0.99).any(-1)
    # The longest row of ink gives the width, the longest column the height.
    inside = pixels[ink.mean(1) > 0.5 * ink.mean(1).max()]
    return inside[:, ink.mean(0) > 0.5 * ink.mean(0).max()]


def texts(figure):
    axes = figure.axes[0]
    found = [axes.get_title(loc="left"), axes.get_xlabel(), *(t.get_text() for t in axes.texts)]
    return "\n".join(found)


def cells(pixels, rows, columns):
    """The colours at the centres of the cells of a grid."""
    h, w = pixels.shape[:2]
    y = ((np.arange(rows) + 0.5) * h / rows).astype(int)
    x = ((np.arange(columns) + 0.5) * w / columns).astype(int)
    return pixels[np.ix_(y, x)]


def test_tiles_are_a_block_matrix_with_gaps():
    a, b, c, d, e = np.arange(5 * 6).reshape(5, 2, 3) / 30
    expected = np.block([[a, b, c], [d, e, np.ones((2, 3))]])
    np.testing.assert_array_equal(canvas.tile(np.stack([a, b, c, d, e]), 2, 3), expected)
    colour = np.random.default_rng(0).random((2, 2, 3, 3))
    for rows, columns, gap in ((1, 2, np.ones((2, 1, 3))), (2, 1, np.ones((2, 3, 3)))):
        size, axis = gap.shape[columns - 1], columns - 1
        expected = np.concatenate([colour[0], gap, colour[1]], axis)
        np.testing.assert_array_equal(canvas.tile(colour, rows, columns, gap=size), expected)


def test_displayable_channels_and_range():
    x = np.random.default_rng(0).random((4, 3, 5, 6))
    np.testing.assert_array_equal(canvas.displayable(x)[2, 4, 1], x[2, :, 4, 1])
    np.testing.assert_array_equal(canvas.displayable(x[:, :1]), x[:, 0])
    np.testing.assert_allclose(canvas.displayable(x[:, :2]), (x[:, 0] + x[:, 1]) / 2)
    np.testing.assert_allclose(canvas.displayable(4 * x[:, 0] - 2).min(), 0)
    # An affine map, so that the middle of the range stays in the middle.
    np.testing.assert_allclose(canvas.displayable(np.array([[[-3.0, 0.0, 3.0]]])), [[[0, 0.5, 1]]])
    assert canvas.displayable(np.ones((4, 2, 2, 5, 6))).shape == (4, 120)


def test_manifold_grid_is_inverse_cdf_in_reading_order():
    grid = plots.manifold_grid(4).reshape(4, 4, 2)
    u = np.array([0.125, 0.375, 0.625, 0.875])
    for i in range(4):
        np.testing.assert_allclose(stats.norm.cdf(grid[i, :, 0]), u, rtol=1e-12)
        np.testing.assert_allclose(stats.norm.cdf(grid[:, i, 1]), u[::-1], rtol=1e-12)


def test_manifold_png_has_first_dimension_across_and_second_up(tmp_path, drawn):
    g = 5
    u1, u2 = stats.norm.cdf(plots.manifold_grid(g)).T
    images = np.ones((g * g, 3, 8, 8)) * 0.5
    images[:, 0] = u1[:, None, None]
    images[:, 1] = u2[:, None, None]
    path = plots.manifold(images, tmp_path / "figures" / "manifold.png")
    assert path == tmp_path / "figures" / "manifold.png"
    colours = cells(picture(path), g, g)
    expected = (np.arange(g) + 0.5) / g
    np.testing.assert_allclose(colours[..., 0], np.tile(expected, (g, 1)), atol=0.01)
    np.testing.assert_allclose(colours[..., 1], np.tile(expected[::-1, None], (1, g)), atol=0.01)
    axes = drawn[0].axes[0]
    # A tick lies at the centre of a cell and names the value decoded there.
    z = plots.manifold_grid(g)[:g, 0]
    assert len(axes.get_xticks()) == len(axes.get_yticks()) == g
    for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True):
        assert float(label.get_text()) == pytest.approx(z[int(tick)], abs=0.006)
    for tick, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True):
        assert float(label.get_text()) == pytest.approx(z[g - 1 - int(tick)], abs=0.006)


@pytest.mark.parametrize("g", [1, 2, 7, 12, 20, 31])
def test_manifold_ticks_are_few_and_symmetric(g, tmp_path, drawn):
    plots.manifold(np.zeros((g * g, 2, 2)), tmp_path / "manifold.png")
    ticks = drawn[0].axes[0].get_xticks()
    assert 1 <= len(ticks) <= 9
    np.testing.assert_allclose(ticks, g - ticks[::-1])


@pytest.mark.parametrize(
    "names", [["input", "reconstruction"], ["clean", "corrupted input", "reconstruction"]]
)
def test_reconstructions_lie_below_inputs_and_those_below_what_is_clean(names, tmp_path, drawn):
    n, rows = 6, len(names)
    levels = np.linspace(0.1, 0.9, rows * n).reshape(rows, n)
    *clean, inputs, outputs = levels[:, :, None, None, None] * np.ones((1, 8, 6))
    pixels = picture(plots.reconstructions(inputs, outputs, tmp_path / "a.png", *clean))
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert list(axes.get_yticks()) == [0.5, 1.5, 2.5][:rows] and axes.get_ylim()[::-1] == (0, rows)
    np.testing.assert_allclose(cells(pixels, rows, n)[..., 0], levels, atol=0.01)
    # Higher than wide, as the data are: 8 x 6 in rows of 6 with gaps of one pixel.
    assert pixels.shape[0] / pixels.shape[1] == pytest.approx(8 * rows / 36, rel=0.06)

    *clean, inputs, outputs = vectors = np.random.default_rng(0).normal(size=(rows, 5, 7))
    plots.reconstructions(inputs, outputs, tmp_path / "vectors.png", *clean)
    shown = [axes for axes in drawn[1].axes if axes.get_visible()]
    assert len(shown) == 5
    for i, axes in enumerate(shown):
        assert [line.get_label() for line in axes.lines] == names
        for line, values in zip(axes.lines, vectors[:, i], strict=True):
            np.testing.assert_array_equal(line.get_ydata(), values)


def test_the_weights_deviation_lies_below_on_a_scale_of_its_own(tmp_path, drawn):
    spread = np.array([0.05, 0.1, 0.15, 0.2])[:, None, None] * np.ones((4, 8, 8))
    x = np.full_like(spread, -2.0)
    path = plots.reconstructions(x, x, tmp_path / "a.png", spread=spread)
    assert drawn[0].axes[0].get_yticklabels()[2].get_text() == "s.d. over weights,\n0 to 0.2"
    levels = cells(picture(path), 3, 4)[..., 0]
    np.testing.assert_allclose(levels, [[0] * 4, [0] * 4, [0.25, 0.5, 0.75, 1]], atol=0.01)


def test_reconstructions_of_more_than_twelve_shows_the_first(tmp_path, drawn):
    x = np.random.default_rng(0).random((20, 1, 2, 2))
    plots.reconstructions(x, x, tmp_path / "reconstructions.png")
    assert drawn[0].axes[0].get_xlim() == (0, 12)


def test_samples_png_is_in_reading_order(tmp_path):
    red, green, blue, grey = np.eye(3)[0], np.eye(3)[1], np.eye(3)[2], np.full(3, 0.5)
    images = np.stack([red, green, blue, grey])[:, :, None, None] * np.ones((9, 9))
    pixels = cells(picture(plots.samples(images, tmp_path / "samples.png", "draws")), 2, 2)
    np.testing.assert_allclose(pixels, [[red, green], [blue, grey]], atol=0.01)


def test_samples_of_vectors_are_curves_in_their_cells(tmp_path, drawn):
    vectors = np.random.default_rng(0).normal(size=(5, 40))
    plots.samples(vectors, tmp_path / "samples.png", "draws")
    (line,) = drawn[0].axes[0].lines
    x, y = (np.reshape(values, (5, 41))[:, :40] for values in (line.get_xdata(), line.get_ydata()))
    for i in range(5):
        row, column = divmod(i, 3)
        assert (x[i] > column).all() and (x[i] < column + 1).all()
        assert (y[i] > row).all() and (y[i] < row + 1).all()
        # The axis points down, so a curve drawn upright falls along it; one scale for all.
        slope = np.diff(y[i] - row) / np.diff(vectors[i])
        np.testing.assert_allclose(slope, -0.8 / np.ptp(vectors), rtol=1e-6)


def test_traversals_rows_are_dimensions(tmp_path, drawn):
    images = np.linspace(0.1, 0.9, 12).reshape(3, 4)[:, :, None, None, None] * np.ones((1, 8, 8))
    values = np.array([-3.0, -1.0, 1.0, 3.0])
    path = plots.traversals(images, values, tmp_path / "t.png", ["z[1]", "z[5]", "z[7]"])
    levels = cells(picture(path), 3, 4)[..., 0]
    np.testing.assert_allclose(levels, images[:, :, 0, 0, 0], atol=0.01)
    axes = drawn[0].axes[0]
    assert [float(label.get_text()) for label in axes.get_xticklabels()] == values.tolist()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["z[1]", "z[5]", "z[7]"]


def test_walks_are_rows_in_order_of_what_they_are_called(tmp_path, drawn):
    images = np.linspace(0.1, 0.9, 8).reshape(2, 4)[:, :, None, None, None] * np.ones((1, 8, 8))
    path = plots.walks(images, tmp_path / "w.png", ["size 0 to 3", "label 1 to 2"], "walks")
    np.testing.assert_allclose(cells(picture(path), 2, 4)[..., 0], images[:, :, 0, 0, 0], atol=0.01)
    names = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert names == ["size 0 to 3", "label 1 to 2"]


def test_walks_end_at_the_other_code_and_at_the_difference_of_means():
    codes = np.random.default_rng(0).normal(size=(9, 3))
    walks = between(codes, 5)
    assert walks.shape == (4, 5, 3)
    for i, walk in enumerate(walks):
        for j, point in enumerate(walk):
            np.testing.assert_allclose(point, codes[i] * (1 - j / 4) + codes[4 + i] * j / 4)
    label, size = np.array([2, 0, 0, 2, 5, 5, 0, 2, 5]), np.array([1, 1, 1, 3, 3, 3, 3, 3, 1])
    found = along_columns(codes, {"label": label}, 3)
    assert list(found) == ["label 0 to 2", "label 2 to 5"]
    difference = codes[[0, 3, 7]].mean(0) - codes[[1, 2, 6]].mean(0)
    expected = codes[1] + np.array([[0], [0.5], [1]]) * difference
    np.testing.assert_allclose(found["label 0 to 2"], expected)
    constant = np.zeros(9, int)
    named = along_columns(codes, {"label": label}, 3, {"label": list("ABCDEF")})
    assert list(named) == ["label A to C", "label C to F"]
    both = along_columns(codes, {"label": label, "none": constant, "size": size})
    assert list(both) == ["label 0 to 5", "size 1 to 3"]


def test_latent_scatter_colours_by_the_name_of_the_class(tmp_path, drawn):
    rng = np.random.default_rng(0)
    codes, labels = rng.normal(size=(200, 2)), np.array(["NK $", "B", "", "T"])[np.arange(200) % 4]
    plots.latent_scatter(
        codes, labels, tmp_path / "codes.png", names=("u$[0]", "u$[1]"), circle=True
    )
    figure = drawn[0]
    points, *samples = figure.axes[0].collections
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["unknown", "B", r"NK \$", "T"]
    assert figure.axes[0].get_xlabel() == r"u\$[0]" and figure.axes[0].get_ylabel() == r"u\$[1]"
    colour = {name: s.get_facecolor()[0][:3] for name, s in zip(legend, samples, strict=True)}
    pairs = zip(points.get_offsets(), points.get_facecolor(), strict=True)
    shown = {tuple(point): face[:3] for point, face in pairs}
    assert len({tuple(c) for c in colour.values()}) == 4
    for code, label in zip(codes, labels, strict=True):
        name = {"": "unknown", "NK $": r"NK \$"}.get(label, label)
        np.testing.assert_array_equal(shown[tuple(code)], colour[name])
    # The circle of a standard normal that 86 % of its draws are in, round in the picture too.
    (circle,) = figure.axes[0].lines
    np.testing.assert_allclose(
        np.hypot(*circle.get_data()), np.sqrt(stats.chi2(2).ppf(0.86466)), rtol=1e-4
    )
    assert figure.axes[0].get_aspect() == 1


def test_codes_of_one_dimension_are_histograms_of_the_classes_in_turn(tmp_path, drawn):
    codes, labels = np.random.default_rng(0).normal(size=(90, 1)), np.arange(90) % 3
    plots.latent_scatter(codes, labels, tmp_path / "codes.png", names=("z[0]",))
    axes = drawn[0].axes[0]
    edges = np.histogram_bin_edges(codes[:, 0], 40)
    counts = [np.histogram(codes[labels == c, 0], edges)[0] for c in range(3)]
    bars = [[bar.get_height() for bar in container] for container in axes.containers]
    np.testing.assert_array_equal(bars, counts)
    assert axes.get_xlabel() == "z[0]"


def test_latent_scatter_beside_draws_from_the_prior(tmp_path, drawn):
    rng = np.random.default_rng(0)
    codes, prior = rng.normal(size=(30, 2)), 3 + rng.normal(size=(40, 2))
    plots.latent_scatter(codes, np.arange(30) % 4, tmp_path / "codes.png", prior)
    first, second = drawn[0].axes
    assert [axes.get_title() for axes in (first, second)] == [
        "codes of data",
        "draws from the prior",
    ]
    shown = np.sort(first.collections[0].get_offsets(), axis=0)
    np.testing.assert_array_equal(shown, np.sort(codes, axis=0))
    np.testing.assert_array_equal(second.collections[0].get_offsets(), prior)
    assert first.get_xlim() == second.get_xlim() and first.get_ylim() == second.get_ylim()
    assert first.get_xlim()[0] < codes[:, 0].min() and first.get_xlim()[1] > prior[:, 0].max()


def test_latent_scatter_without_and_with_many_labels(tmp_path, drawn):
    codes = np.random.default_rng(0).normal(size=(90, 2))
    plots.latent_scatter(codes, None, tmp_path / "none.png")
    plots.latent_scatter(codes, np.arange(90) % 30, tmp_path / "many.png")
    none, many = drawn
    assert not none.legends and not many.legends and len(many.axes) == 2
    points = many.axes[0].collections[0]
    labels = dict(zip(map(tuple, codes), np.arange(90) % 30, strict=True))
    shown = [labels[tuple(point)] for point in points.get_offsets()]
    np.testing.assert_array_equal(points.get_array(), shown)


def rows(elbo, scale):
    return [
        {"epoch": e, "objective": None if v is None else v + 5, "elbo": v, "kl_scale": s}
        for e, (v, s) in enumerate(zip(elbo, scale, strict=True), 1)
    ]


def test_history_draws_what_was_measured(tmp_path, drawn):
    elbo = [-5000.0, -400.0, None, *np.linspace(-110, -100, 27)]
    plots.history(rows(elbo, [1.0] * 30), tmp_path / "history.png")
    axes = drawn[0].axes[0]
    curves = {line.get_label().split(",")[0]: line for line in axes.lines}
    shown = curves["validation ELBO"]
    np.testing.assert_array_equal(shown.get_xdata(), [1, 2, *range(4, 31)])
    np.testing.assert_array_equal(shown.get_ydata(), [v for v in elbo if v is not None])
    difference = curves["training objective"].get_ydata() - shown.get_ydata()
    np.testing.assert_allclose(difference, 5)
    assert "best -100.00 at epoch 30" in shown.get_label()
    low, high = axes.get_ylim()
    # The 27 late epochs fill the axis; the first two of each curve lie below it, and are counted.
    assert -130 < low < -110 and -95 < high < -90
    assert "4 points lie below" in axes.get_xlabel()
    assert not axes.patches


def test_curves_show_all_of_a_rise_and_the_end_of_a_fall_from_far_below(tmp_path, drawn):
    x, slow, poor = (
        np.array([1.0, 2, 5, 10]),
        [[-140.0, -125, -110, -100]],
        [[-200.0, -150, -120, -100]],
    )
    titles = {"slow": slow, "poor": poor, "short": [[-9e5, -100.0]]}
    lines = {title: {"AEVB": (x[: len(y[0])], np.array(y))} for title, y in titles.items()}
    panels.curves(lines, tmp_path / "curves.png", "images", "nats", log=True)
    first, second, third = (axes.get_ylim() for axes in drawn[0].axes[:3])
    np.testing.assert_allclose(first, (-144, -96))
    np.testing.assert_allclose(second, (-122, -98))
    np.testing.assert_allclose(third, (-100.5, -99.5))
    for axes, y in zip(drawn[0].axes, titles.values(), strict=False):
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), y[0])
    # The values that there are, and no powers of ten between them.
    ticks = [text.get_text() for text in drawn[0].axes[0].get_xticklabels()]
    assert ticks == ["1", "2", "5", "10"] and not len(drawn[0].axes[0].get_xticks(minor=True))
    # Not where their labels would overlap: of large numbers, or of some far apart.
    for x, expected in (
        ([1, 2, 3], [1, 2, 3]),
        ([0, 10, 25, 40, 60], [0, 10, 25, 40, 60]),
        ([1, 2, 5001], None),
        ([51_000, 103_000, 250_000], None),
    ):
        line = {"x": {"AEVB": (np.array(x), np.arange(len(x))[None].astype(float))}}
        panels.curves(line, tmp_path / "curves.png", "images", "nats")
        ticks = drawn[-1].axes[0].get_xticks().tolist()
        assert ticks == expected or expected is None and not {*x} <= {*ticks}


def test_a_dot_tells_figures_apart():
    """What tests compare in the place of pictures, see conftest.py."""

    def figure(value, title="a", ticks=(0, 1), legend=None):
        made = canvas.blank(2.0, 2.0)
        axes = made.subplots()
        axes.plot([0, 1], [0.0, value], label="line")
        axes.set_xticks(ticks, ["low", "high"])
        axes.set_title(title)
        if legend is not None:
            axes.legend(title=legend)
        return dot(made)

    assert figure(1.0) == figure(1.0)
    others = figure(1.0, "b"), figure(1.0, ticks=(0, 0.5)), figure(1.0, legend=""), figure(1.001)
    assert len({figure(1.0), *others, figure(1.0, legend="x")}) == 6


def test_history_without_an_elbo_shows_the_reconstruction(tmp_path, drawn):
    measured = [dict(row, elbo=None, reconstruction=-2.0) for row in rows([-9.0, -8.0], [1, 1])]
    plots.history(measured, tmp_path / "history.png")
    training, validation = drawn[0].axes[0].lines
    np.testing.assert_array_equal(training.get_ydata(), [-4, -3])
    np.testing.assert_array_equal(validation.get_ydata(), [-2, -2])
    assert validation.get_label().startswith("validation reconstruction, best -2.00")


def test_history_marks_the_warm_up(tmp_path, drawn):
    plots.history(rows([-9.0, -8.0, -7.0, -6.0], [0.3, 0.6, 1.0, 1.0]), tmp_path / "a.png")
    (span,) = drawn[0].axes[0].patches
    assert (span.get_x(), span.get_x() + span.get_width()) == (1, 2)
    plots.history(rows([-9.0, -8.0], [4.0, 4.0]), tmp_path / "b.png")
    assert "4" in drawn[1].axes[0].get_title() and not drawn[1].axes[0].patches


@pytest.mark.parametrize("elbo", [[], [None], [-3.0], [-3.0, -3.0]])
def test_history_of_almost_nothing(elbo, tmp_path):
    path = plots.history(rows(elbo, [1.0] * len(elbo)), tmp_path / "history.png")
    assert imread(path).shape[0] > 300


def annotated(text, name):
    found = re.search(re.escape(name) + r": (-?[\d.]+) ± ([\d.]+)", text)
    assert found, text
    return float(found[1]), float(found[2])


def test_the_gap_of_each_datum_is_drawn_with_means_and_errors(tmp_path, drawn):
    rng = np.random.default_rng(0)
    elbo = rng.normal(-100, 25, 30)
    likelihood = elbo + rng.gamma(3, 1, 30)
    bound = elbo + rng.gamma(2, 1, 30)
    plots.elbo_against_log_likelihood(elbo, likelihood, tmp_path / "gap.png", bound)
    axes = drawn[0].axes[0]
    points = axes.collections[0].get_offsets()
    np.testing.assert_array_equal(points, np.stack([likelihood, likelihood - elbo], 1))
    for name, values in (
        ("ELBO", elbo),
        ("log-likelihood", likelihood),
        ("gap", likelihood - elbo),
        ("IWAE bound", bound),
    ):
        expected = (values.mean(), stats.sem(values))
        assert annotated(texts(drawn[0]), name) == pytest.approx(expected, abs=0.0051)
    levels = {line.get_label(): line.get_ydata()[0] for line in axes.lines}
    assert levels == {
        "ELBO": 0,
        "mean gap": pytest.approx((likelihood - elbo).mean()),
        "mean of the IWAE bound above the ELBO": pytest.approx((bound - elbo).mean()),
    }
    assert axes.get_ylabel() == "log-likelihood - ELBO, nats"


def test_pairwise_error_is_of_the_paired_difference(tmp_path, drawn):
    rng = np.random.default_rng(0)
    first = rng.normal(-100, 25, 30)
    second = first + rng.normal(2, 1, 30)
    plots.pairwise(("runs/a$1", "runs/b$2"), first, second, tmp_path / "pair.png")
    # Data shared by both runs cancel: the error is that of the difference, not of both means.
    expected = ((second - first).mean(), stats.sem(second - first))
    assert annotated(texts(drawn[0]), "difference") == pytest.approx(expected, abs=0.0051)
    points = drawn[0].axes[0].collections[0].get_offsets()
    np.testing.assert_array_equal(points, np.stack([first, second], 1))
    assert r"runs/b\$2" in drawn[0].axes[0].get_ylabel()


def test_scatter_of_one_datum_has_no_error(tmp_path, drawn):
    plots.elbo_against_log_likelihood(np.array([-3.0]), np.array([-2.0]), tmp_path / "one.png")
    assert "ELBO: -3.00\n" in texts(drawn[0])


def test_inference_gap_stacks_the_bounds_in_the_order_of_their_sum(tmp_path, drawn):
    rng = np.random.default_rng(0)
    guide = rng.normal(-100, 25, 9)
    normal = guide + rng.gamma(3, 1, 9)
    best = normal + rng.gamma(2, 1, 9)
    bounds = {"elbo_guide": guide, "elbo_normal": normal, "log_likelihood_best": best}
    plots.inference_gap(bounds, tmp_path / "inference_gap.png")
    axes = drawn[0].axes[0]
    said = [axes.get_title(loc="left"), *(t.get_text() for t in axes.get_legend().get_texts())]
    for name, values in (
        ("inference gap", best - guide),
        ("elbo_guide to elbo_normal", normal - guide),
        ("elbo_normal to log_likelihood_best", best - normal),
    ):
        expected = (values.mean(), stats.sem(values))
        assert annotated("\n".join(said), name) == pytest.approx(expected, abs=0.0051)
    order = np.argsort(best - guide)
    for area, upper in zip(axes.collections, (normal, best), strict=True):
        corners = {tuple(corner) for corner in area.get_paths()[0].vertices.round(9)}
        for i, height in enumerate((upper - guide)[order]):
            assert {(i, round(height, 9)), (i + 1, round(height, 9))} <= corners


def test_latent_kl_is_sorted_and_tells_what_has_collapsed(tmp_path, drawn):
    rng = np.random.default_rng(0)
    z = rng.gamma(2, 1, (30, 4)) * [0.5, 1e-4, 2.0, 1e-3]
    y = rng.gamma(2, 1, (30, 2))
    plots.latent_kl({"z": z, "y$": y}, 0.01, tmp_path / "latent_kl.png")
    first, second = drawn[0].axes
    order = np.argsort(-z.mean(0))
    assert list(order[:2]) == [2, 0]
    assert [label.get_text() for label in first.get_xticklabels()] == [str(i) for i in order]
    np.testing.assert_allclose([bar.get_height() for bar in first.patches], z.mean(0)[order])
    colors = [bar.get_facecolor() for bar in first.patches]
    assert colors[0] == colors[1] != colors[2] == colors[3]
    title = first.get_title(loc="left")
    assert title == f"z: {z.mean(0).sum():.2f} nats, 2 of 4 above 0.01"
    assert second.get_title(loc="left").startswith(r"y\$: ")
    (bars,) = second.collections
    lengths = [np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()]
    np.testing.assert_allclose(lengths, stats.sem(y)[np.argsort(-y.mean(0))])


def test_comparison_places_runs_and_errors(tmp_path, drawn):
    metrics = {
        "ELBO": ([-101.0, -99.0, None], [0.5, 0.25, None]),
        "log-likelihood": ([-98.0, -97.0, -90.0], [0.3, 0.2, 0.1]),
    }
    plots.comparison(["runs/a", "runs/b", "runs/c"], metrics, tmp_path / "comparison.png")
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["runs/a", "runs/b", "runs/c"]
    bars = [bar.get_segments()[0] for bar in axes.collections]
    expected = [(-101.0, 0.5), (-99.0, 0.25), (-98.0, 0.3), (-97.0, 0.2), (-90.0, 0.1)]
    assert [tuple(bar[:, 0]) for bar in bars] == [
        pytest.approx((value - error, value + error)) for value, error in expected
    ]
    assert [round(bar[0, 1]) for bar in bars] == [0, 1, 0, 1, 2]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first run on top
    undefined = [text for text in axes.texts if "not defined" in text.get_text()]
    assert len(undefined) == 1 and "ELBO" in undefined[0].get_text()
    assert round(undefined[0].get_position()[1]) == 2
    assert "-97.00 ± 0.20" in texts(drawn[0])


def test_a_title_is_broken_into_lines_and_shrinks_nothing(tmp_path, drawn):
    with canvas.titled("a$b " + "x" * 50):
        figure = canvas.blank(2.0, 3.0)
        canvas.save(figure, tmp_path / "titled.png")
    assert figure.get_suptitle().split("\n") == [r"a\$b " + "x" * 18, "x" * 22, "x" * 10]
    assert figure.get_figheight() == pytest.approx(3.6)
    canvas.save(figure := canvas.blank(2.0, 3.0), tmp_path / "untitled.png")
    assert figure.get_suptitle() == "" and figure.get_figheight() == 3.0


def test_pyplot_is_never_imported(tmp_path):
    code = (
        "import sys, numpy as np; from pyro_aevb.reports import plots;"
        f"plots.samples(np.zeros((4, 1, 3, 3)), {str(tmp_path / 'samples.png')!r}, 'draws');"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
