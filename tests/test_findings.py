"""What the findings of docs/studies say of their tables is in the tables.

Each test works numbers out from the tables and the points of curves, and looks for them in the
words: most of those of aevb and bayesian_autoencoders, of the other pages those of the conclusions.
Those of other things, such as pictures, are nowhere checked.
"""

import csv
import json
import math
import re
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from pyro_aevb.studies.declare import slug
from pyro_aevb.studies.shipped.autoencoder_grids import PULLS, SLOWER, reachable
from pyro_aevb.studies.shipped.bayesian_autoencoders import ESTIMATE

STUDIES = Path(__file__).parents[1] / "docs" / "studies"
MLPS = ("32", "256-128-2", "256-128-3", "256-128-32", "128-64-2", "128-64-3", "128-64-32")
FAMILIES = ("AE", "Bayesian NN", "VAE", "Hybrid", "AAE")
LARGE = tuple(row for row in MLPS if row.endswith("32"))
SMALL = tuple(row for row in MLPS if row not in LARGE)


@cache
def table(study, name, column="mean"):
    with (STUDIES / study / f"{name}.csv").open() as file:
        return {
            (row["row"], row["column"]): float(row[column].partition(";")[0])
            for row in csv.DictReader(file)
            if row[column] not in ("", "nan")
        }


def seeds(name):
    """The values of every seed in a table of Bayesian autoencoders."""
    with (STUDIES / BAYESIAN / f"{name}.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["values"]]
    return {(r["row"], r["column"]): [float(v) for v in r["values"].split(";")] for r in rows}


def says(study, phrase):
    words = " ".join((STUDIES / study / "findings.md").read_text().split())
    whole = rf"(?<![\d.,]){re.escape(phrase)}(?!\d|[.,]\d)"
    assert re.search(whole, words), f"the findings of {study} do not say: {phrase}"


def span(values, places=0):
    """The smallest and the largest, to whole numbers or to so many places."""
    ordered = [f"{value:.{places}f}" for value in sorted(values)]
    return " to ".join(dict.fromkeys((ordered[0], ordered[-1])))


def most(values, places=0):
    """What they are within: the largest, rounded up."""
    return f"{math.ceil(max(map(abs, values)) * 10**places) / 10**places:.{places}f}"


@pytest.mark.parametrize("study", [path.parent.name for path in STUDIES.glob("*/findings.md")])
def test_the_page_has_the_findings(study):
    page = (STUDIES / f"{study}.md").read_text()
    findings = page.partition("## Findings\n\n")[2].partition("\n\n## Tables")[0]
    # Where the page has a picture with its caption, the findings have its file.
    shown = rf"!\[(.*)\]\({study}/(.*\.png)\)\n\n\*\1\*.*"
    assert (
        re.sub(shown, r"![](\2)", findings) == (STUDIES / study / "findings.md").read_text().strip()
    )


# Bayesian autoencoders

BAYESIAN = "bayesian_autoencoders"
CLEAN = "reconstruction"
OUTLIER = ("256-128-2", "AE")
NOISY = "reconstruction-under-noise"
REACHED = "reconstruction-what-is-reachable"
AWARE = "reconstruction-under-noise-what-is-reachable"


def gaps(one, other, rows):
    """By how much a column of a table is above another column of a table, by row."""
    (a, x), (b, y) = ((table(BAYESIAN, name), column) for name, column in (one, other))
    return [a[row, x] - b[row, y] for row in rows]


def test_how_many_seeds_there_are():
    count = table(BAYESIAN, CLEAN, "seeds")
    assert {count[row, f] for row in MLPS for f in FAMILIES} == {3}
    says(BAYESIAN, "Under the protocol every family has three seeds")
    reached = table(BAYESIAN, REACHED, "seeds")
    assert {reached[row, f] for row in MLPS for f in FAMILIES} == {2, 3}
    full = {n for (row, f), n in reached.items() if row in MLPS and f.endswith("full KL")}
    assert full == {1}
    aware = table(BAYESIAN, AWARE, "seeds")
    assert {row for (row, _), count in aware.items() if count > 1} == {"128-64-2"}
    assert {count["conv 32", f] for f in FAMILIES} == {3}
    assert {reached["conv 32", f] for f in FAMILIES} == {1}


def test_seeds_of_point_weights_differ_by_as_much_as_is_said():
    clean, noisy = (table(BAYESIAN, name, "spread") for name in (CLEAN, NOISY))
    cells = list(product(MLPS, ("AE", "VAE")))
    largest = max(noisy[cell] for cell in cells)
    says(
        BAYESIAN,
        f"the autoencoder and the VAE is {span(clean[cell] for cell in cells)} nats on clean "
        f"images and up to {largest:.0f} under noise",
    )


def test_importance_weights_are_heavy_tailed_in_all_cells():
    tail = "tail-shape-of-the-importance-weights"
    for suffix in ("", "-what-is-reachable"):
        assert min(table(BAYESIAN, f"{tail}{suffix}").values()) > 0.7
    assert "above 0.7, as it is in all cells so far" in ESTIMATE


def test_a_kl_of_the_codes_costs_most_at_32_dimensions():
    both = (CLEAN, REACHED)
    large = [gap for name in both for gap in gaps((name, "AE"), (name, "VAE"), LARGE)]
    says(BAYESIAN, f"the VAE reconstructs {span(large)} nats worse than the autoencoder")
    protocol, best = (gaps((name, "AE"), (name, "VAE"), SMALL) for name in both)
    assert sum(gap < 0 for gap in protocol) == 3
    says(
        BAYESIAN,
        f"the two are within {most(protocol + best)} nats of each other. Under the protocol the "
        "VAE is ahead in three of four rows, though in two",
    )
    last, *others = sorted(seeds(CLEAN)[OUTLIER])
    says(BAYESIAN, f"autoencoders is {sum(others) / 2 - last:.0f} nats behind the others")
    assert min(best) > 0
    says(BAYESIAN, f"gains {span(gaps((REACHED, 'AE'), (CLEAN, 'AE'), SMALL))}")


def test_random_weights_help_under_noise():
    def cost(families, rows):
        return [c for f in families for c in gaps((CLEAN, f), (NOISY, f), rows)]

    random, points = ("Bayesian NN", "Hybrid"), ("AE", "VAE")
    says(
        BAYESIAN,
        f"those whose weights are {span(cost(random, MLPS))} nats, and the autoencoder and the "
        f"VAE {span(cost(points, MLPS))}",
    )
    says(BAYESIAN, f"whose weights are not, lose {span(cost(('AAE',), MLPS))}.")
    vae, net, aae = (cost((family,), ["conv 32"])[0] for family in ("VAE", "Bayesian NN", "AAE"))
    assert 0 < vae - net < 5 and aae == max(cost(FAMILIES, ["conv 32"]))
    deep = [row for row in LARGE if row != "32"]
    loose, tight = cost(("AE",), deep), cost(("VAE",), deep)
    says(BAYESIAN, f"nothing constrains, {span(loose)} nats, and the VAE {span(tight)}")
    others = [row for row in MLPS if row not in deep]
    more = [ae > vae for ae, vae in zip(cost(("AE",), others), cost(("VAE",), others), strict=True)]
    assert {True, False} == set(more)


def test_the_hybrid_at_full_weight_and_at_little():
    published = table(BAYESIAN, CLEAN, "published")
    mean = table(BAYESIAN, CLEAN)
    short = [published[row, "Hybrid"] - mean[row, "Hybrid"] for row in LARGE]
    whole = table(BAYESIAN, REACHED)
    best = [published[row, "Hybrid"] - whole[row, "Hybrid, full KL"] for row in LARGE]
    says(
        BAYESIAN,
        f"at 32 dimensions {span(short)} nats below the published hybrid, and {span(best)} with "
        "the best training",
    )
    near = gaps((REACHED, "AE"), (REACHED, "Hybrid"), MLPS)
    says(BAYESIAN, f"within {most(near)} nats of an autoencoder")
    better = gaps((CLEAN, "Hybrid"), (CLEAN, "VAE"), MLPS)
    says(BAYESIAN, f"at most {max(better):.1f} nats better than one under the protocol")
    elbo = "elbo-what-is-reachable"
    lost = gaps((elbo, "VAE"), (elbo, "Hybrid"), MLPS)
    says(BAYESIAN, f"its bound is {span(lost)} nats below that of the VAE")
    assert min(table(BAYESIAN, REACHED, "gain")[row, "Hybrid"] for row in MLPS) >= 0


def test_bounds_at_full_weight():
    elbo = "elbo-what-is-reachable"
    rows = [row for row in MLPS if (row, "Hybrid, full KL") in table(BAYESIAN, elbo)]
    lower = gaps((elbo, "VAE"), (elbo, "Hybrid, full KL"), rows)
    says(
        BAYESIAN, f"(one seed, {len(rows)} rows) the hybrid's bound is {span(lower, 1)} nats below"
    )
    price = gaps((REACHED, "Hybrid"), (REACHED, "Hybrid, full KL"), rows)
    says(BAYESIAN, f"and its reconstruction {span(price)} below that at 1/55,000")
    rows = [row for row in MLPS if (row, "Bayesian NN, full KL") in table(BAYESIAN, REACHED)]
    price = gaps((REACHED, "Bayesian NN"), (REACHED, "Bayesian NN, full KL"), rows)
    says(BAYESIAN, f"reconstructs {span(price, 1)} nats worse at full weight ({len(rows)} rows)")


def test_how_far_adversarial_nets_fall_short_under_the_protocol():
    published = table(BAYESIAN, CLEAN, "published")
    values = seeds(CLEAN)
    short = {
        row: [published[row, "AAE"] - value for value in values[row, "AAE"]]
        for row in MLPS
        if row != "32" and (row, "AAE") in published
    }
    assert [row for row in short if min(short[row]) <= 0] == ["128-64-3"]
    assert short["128-64-3"][0] < 0
    deep = [gap for row in short if row in LARGE for gap in short[row]]
    says(BAYESIAN, f"At 32 dimensions they do by {span(deep)} nats")
    flat = sorted(gap for row in short if row in SMALL for gap in short[row])
    above, *others, one, two = flat
    assert above < 0 and len(others) == 6
    says(BAYESIAN, f"by {one:.0f} and {two:.0f} nats, and the other six by {span(others)}.")


def test_adversarial_training_runs_away_in_some_seeds():
    spread = table(BAYESIAN, CLEAN, "spread")
    away = [row for row in MLPS if row not in ("32", "128-64-2")]
    says(BAYESIAN, f"standard deviation over seeds is {span(spread[r, 'AAE'] for r in away)} nats")
    assert max(spread[row, "AAE"] for row in ("32", "128-64-2")) < 4
    gain = table(BAYESIAN, REACHED, "gain")
    assert min(gain[row, "AAE"] for row in MLPS if (row, "AAE") in gain) > 0
    says(BAYESIAN, "all rows reach the stored values")


def discriminator_losses(grid):
    """Of the adversarial nets of a grid, in the last epoch, by row; of some they were not kept."""
    cells = (STUDIES / BAYESIAN / "cells.jsonl").read_text().splitlines()
    known = {cell["cell"]: cell for cell in map(json.loads, cells)}  # of two lines the later counts
    losses = {}
    for path, cell in known.items():
        _, of, row, column, _ = path.split("/")
        loss = cell["numbers"].get("50", {}).get("history/discriminator_loss")
        if (of, column) == (grid, "AAE") and loss is not None:
            losses.setdefault(row, []).append(loss)
    return losses


def test_how_well_discriminators_tell_codes_from_the_prior():
    losses = discriminator_losses("reachable")
    slow = sorted(loss for row in SMALL for loss in losses[row])
    assert len(slow) == sum(table(BAYESIAN, REACHED, "seeds")[row, "AAE"] for row in SMALL)
    says(BAYESIAN, f"loss ends at {slow[0]:.2f} to {slow[-1]:.2f}")
    full = [loss for row in LARGE for loss in losses[row]]
    assert full and all(abs(loss - 2 * math.log(2)) < 0.005 for loss in full)
    says(BAYESIAN, f"at the {2 * math.log(2):.2f} (2 log 2) of one that cannot tell")


def test_how_the_rate_of_the_generator_was_chosen():
    tried = table(BAYESIAN, "what-was-tried-on-validation-data")
    losses = discriminator_losses("search")
    values = {
        title: [tried[f"{title}{pull}", "AAE"] for pull in ("", *(f", {s}" for s in SLOWER))]
        for title in {title for title, _ in PULLS.values()}
    }
    assert len(values) == 4 and all(max(found) == found[-1] for found in values.values())
    (large,) = (title for title in values if title.startswith("128-64-32"))
    full, *_, slowest = values.pop(large)
    gains = sorted(found[-1] - found[0] for found in values.values())
    chosen = reachable.chosen
    assert f"{gains[0]:.1f} to {gains[-1]:.1f} nats better than at the full rate" in chosen
    assert f"slower generators reconstruct up to {slowest - full:.1f} nats better" in chosen
    told = [losses[slug(f"{large}, {slower}")][0] for slower in SLOWER]
    assert f"loss of {max(told):.2f} and less" in chosen
    kept = [losses[slug(f"{title}, {SLOWER[-1]}")][0] for title in values]
    assert min(kept) > 1.1 and "loss above 1.1 there," in chosen


def test_what_an_output_bias_is_worth():
    tried = table(BAYESIAN, "what-was-tried-on-validation-data")
    plain, biased = (tried[f"128-64-32, cosine 2e-3{b}", "VAE"] for b in ("", ", output bias"))
    says(BAYESIAN, f"was worth {biased - plain:.0f} nats")


def test_what_random_weights_cost_on_clean_images():
    def worse(name, rows):
        return gaps((name, "AE"), (name, "Bayesian NN"), rows)

    by_size = {
        size: worse(CLEAN, [r for r in MLPS if r[-2:] == size]) for size in ("32", "-3", "-2")
    }
    assert max(map(abs, by_size["-3"])) < 0.5
    says(
        BAYESIAN,
        f"up to {max(by_size['32']):.0f} nats worse than one whose weights are not at 32 "
        f"dimensions, as well at 3 and up to {-min(by_size['-2']):.0f} better at 2",
    )
    says(BAYESIAN, f"within {most(worse(REACHED, MLPS), 1)} nats of it")


def test_nets_that_saw_noise():
    families = ("AE", "Bayesian NN", "VAE", "Hybrid")
    clean = "reconstruction-of-clean-images-after-training-under-noise"
    near = [gap for f in families for gap in gaps((REACHED, f), (AWARE, f), MLPS)]
    says(BAYESIAN, f"reconstruct noisy images within {most(near)} nats of")
    cost = [gap for f in families for gap in gaps((REACHED, f), (clean, f), MLPS)]
    says(BAYESIAN, f"It costs them {span(cost)} nats on clean images")


def test_the_conclusions_of_the_page():
    worse = gaps((CLEAN, "AE"), (CLEAN, "Bayesian NN"), MLPS)
    says(BAYESIAN, f"whose weights are random, is at most {max(worse):.1f} nats worse")
    mean = table(BAYESIAN, CLEAN)
    apart = [
        max(values) - min(values)
        for values in ([mean[row, f] for f in FAMILIES if f != "AAE"] for row in SMALL)
    ]
    says(BAYESIAN, f"adversarial nets are within {most(apart)} nats of each other")
    for name, net, said in (
        ("training-time", "takes 1.5", "An adversarial MLP {} times, a Bayesian one, with its ten"),
        ("parameters", "has 1.5", "{} and"),
    ):
        found = table(BAYESIAN, f"{name}-relative-to-the-vae")
        aae, bayesian = ([found[row, family] for row in MLPS] for family in ("AAE", "Bayesian NN"))
        says(BAYESIAN, f"An adversarial net {net} times")
        says(BAYESIAN, said.format(span(aae, 1)))
        places = 0 if name == "training-time" else 1
        says(BAYESIAN, f"{span(bayesian, places)} times")


def test_how_times_differ_between_seeds():
    values = seeds("training-time-relative-to-the-vae").values()
    ratios = [max(found) / min(found) for found in values]
    says(BAYESIAN, f"by up to a factor of {max(ratios):.1f}")


def test_convolutional_nets():
    mean = table(BAYESIAN, CLEAN)
    families = ("AE", "AAE", "VAE", "Bayesian NN", "Hybrid")
    more = {f: mean["conv 32", f] - max(mean[row, f] for row in MLPS) for f in families}
    assert [f for f in families if more[f] < 0] == ["AAE"]
    says(BAYESIAN, f"the autoencoder by {more['AE']:.0f} nats, the VAE by {more['VAE']:.0f}")
    clean, noisy = (seeds(name) for name in (CLEAN, NOISY))
    ae, aae, vae, bnn, hybrid = (
        span(a - b for a, b in zip(clean["conv 32", f], noisy["conv 32", f], strict=True))
        for f in families
    )
    says(
        BAYESIAN,
        f"costs the autoencoder {ae} nats, by seed, the adversarial one {aae}, the VAE {vae}, the "
        f"Bayesian net {bnn} and the hybrid {hybrid}.",
    )


# Auto-encoding variational Bayes

AEVB = "aevb"
COLUMNS = ("AEVB", "wake-sleep", "Monte Carlo EM")


def test_two_hundred_dimensions():
    bound = table(AEVB, "lower-bound-by-size-of-the-code")
    units = table(AEVB, "active-units-by-size-of-the-code")
    grey, binary = "VAE", "VAE, binarized"
    says(
        AEVB,
        f"The lower bound is {bound['20', grey] - bound['200', grey]:.1f} nats below that of 20 "
        f"dimensions and {bound['200', grey] - bound['10', grey]:.1f} above that of 10; with "
        f"binarized pixels {bound['20', binary] - bound['200', binary]:.1f} below that of 20",
    )
    says(
        AEVB,
        f"{units['200', grey]:.0f} of the 200 dimensions are active, "
        f"{units['200', binary]:.0f} with binarized pixels",
    )
    longer = table(AEVB, "lower-bound-aevb-and-wake-sleep")
    ten, twenty, many = (longer[f"MNIST, N_z = {n}", "AEVB"] for n in (10, 20, 200))
    says(AEVB, f"the bound is {many - twenty:.1f} above that of 20 and {many - ten:.1f} above")


def test_an_autoencoder_reconstructs_better():
    mean = table(AEVB, "reconstruction-by-size-of-the-code")
    more = {n: mean[n, "AE"] - mean[n, "VAE"] for n in ("2", "3", "5", "10", "20", "200")}
    assert abs(more["2"]) < 0.5 and list(more.values()) == sorted(more.values())
    says(AEVB, f"by {more['3']:.0f} nats there and by {more['200']:.0f} at 200")


def test_a_start_read_as_a_variance():
    tried = table(AEVB, "starts-and-steps-of-adagrad-on-validation-data")

    def gain(task, column):
        best = {
            std: max(tried.get((f"{task}, step {s}{std}", column), -1e9) for s in (0.01, 0.02, 0.1))
            for std in ("", ", std 0.1")
        }
        return best[", std 0.1"] - best[""]

    frey = [gain("Frey Face, N_z = 10", column) for column in COLUMNS[:2]]
    mnist = [gain("MNIST, N_z = 10", column) for column in COLUMNS[:2]]
    marginal = [gain(f"{n} images", column) for n in ("1,000", "50,000") for column in COLUMNS[:2]]
    says(
        AEVB,
        f"by {span(mnist)} nats on MNIST with ten dimensions, by {span(frey)} on "
        f"Frey Face, by {span(marginal)} in the cells",
    )
    two_hundred = {column: gain("MNIST, N_z = 200", column) for column in COLUMNS[:2]}
    assert all(value < 0 for value in two_hundred.values())
    theirs = "MNIST, N_z = 200, step 0.02, std 0.1"  # of ten dimensions
    slept = round(tried[theirs, "wake-sleep"], -3)
    best = tried["MNIST, N_z = 200, step 0.02", "AEVB"]
    lost = best - tried[theirs, "AEVB"]
    says(AEVB, f"leave wake-sleep at {slept:,.0f} and AEVB {lost:.0f} nats lower after ten epochs")
    for task, column in (*((f"{n} images", "Monte Carlo EM") for n in ("1,000", "50,000")),):
        assert gain(task, column) < 0


def test_aevb_is_above_wake_sleep():
    bound = table(AEVB, "lower-bound-aevb-and-wake-sleep")
    gain = {task: bound[task, "AEVB"] - bound[task, "wake-sleep"] for task, _ in bound}
    frey = [g for task, g in gain.items() if task.startswith("Frey")]
    two = gain["Frey Face, N_z = 2"]
    frey.remove(two)
    says(AEVB, f"by {two:.0f} nats at two dimensions and by {span(frey)} beyond")
    binarized = gain.pop("MNIST, N_z = 10, binarized")
    mnist = [g for task, g in gain.items() if task.startswith("MNIST")]
    says(AEVB, f"in the end by {span(mnist)} nats")
    grey = gain["MNIST, N_z = 10"]
    says(AEVB, f"AEVB is {binarized:.1f} nats above it with ten dimensions, and {grey:.1f} on grey")


def annealed_by(x):
    """The annealed curves of a picture: abscissa and ordinate by row and column."""
    curves = {}
    with (STUDIES / AEVB / f"marginal-by-{x}.curves.csv").open() as file:
        for point in csv.DictReader(file):
            if point["quantity"] == "ais/ais_lower":
                key = point["row"], point["column"]
                curves.setdefault(key, []).append((float(point[x]), float(point["mean"])))
    return curves


def test_marginal_likelihoods_against_images():
    curves = annealed_by("images")
    above = {column: {} for column in COLUMNS}
    for (row, column), points in curves.items():
        aevb = dict(curves[row, "AEVB"])
        assert len(points) == len(aevb) == (11 if row.startswith("1,") else 7)
        above[column][row] = [value - aevb[images] for images, value in points]
    less = [-gap for gaps in above["wake-sleep"].values() for gap in gaps]
    says(AEVB, f"above wake-sleep at every look, by {span(less)} nats")
    few, many = above["Monte Carlo EM"].values()
    assert few[0] < 0 < min(few[1:])
    says(AEVB, f"With 1,000 images it is {-few[0]:.0f} nats below AEVB after the first epoch")
    says(AEVB, f"and above from the second on, by up to {max(few):.0f}")
    assert max(many[:3]) < 0 < min(many[3:])
    says(AEVB, f"with 50,000 it is {span(-gap for gap in many[:3])} below up to the fifth")
    says(AEVB, f"and {span(many[3:])} above from the tenth on")


def test_marginal_likelihoods_against_seconds():
    curves = annealed_by("seconds")
    behind = {}
    longer = []
    for row in ("1,000 images", "50,000 images"):
        seconds, values = zip(*curves[row, "AEVB"], strict=True)
        behind[row] = [
            float(np.interp(np.log(at), np.log(seconds), values)) - value
            for at, value in curves[row, "Monte Carlo EM"]
            if seconds[0] <= at <= seconds[-1]
        ]
        times, reached = zip(*curves[row, "Monte Carlo EM"], strict=True)
        assert list(reached) == sorted(reached)
        longer.append(np.exp(np.interp(values[-1], reached, np.log(times))) / seconds[-1])
    few, many = behind.values()
    assert len(few) == 7 and len(many) == 3
    says(AEVB, f"it is {span(few)} nats behind with 1,000 images and {span(many)} with 50,000")
    says(AEVB, f"It takes {span(longer)} times as long as AEVB")


def test_marginal_likelihoods():
    few, many = "1,000 images", "50,000 images"
    annealed = table(AEVB, "marginal-likelihood-annealed")
    above = {n: annealed[n, "AEVB"] - annealed[n, "wake-sleep"] for n in (few, many)}
    more = {n: annealed[n, "Monte Carlo EM"] - annealed[n, "AEVB"] for n in (few, many)}
    says(AEVB, f"by {above[few]:.0f} nats with 1,000 images and by {above[many]:.0f} with 50,000")
    says(AEVB, f"ends {more[few]:.1f} nats above AEVB with 1,000 images and {more[many]:.1f} with")
    seconds = table(AEVB, "seconds-per-epoch")
    times = [seconds[n, "Monte Carlo EM"] / seconds[n, "AEVB"] for n in (few, many)]
    says(AEVB, f"epoch takes {span(times)} times as long")
    test, training = "lower-bound-1-000-and-50-000-images", "the-same-on-training-images"
    worse = [table(AEVB, training)[n, "AEVB"] - table(AEVB, test)[n, "AEVB"] for n in (few, many)]
    says(AEVB, f"{worse[0]:.0f} nats lower on these than on training images ({worse[1]:.1f} with")
    guide = table(AEVB, "marginal-likelihood-importance-sampling")
    lost = {column: annealed[few, column] - guide[few, column] for column in COLUMNS}
    says(
        AEVB,
        f"{lost['AEVB']:.0f} nats below annealing for AEVB and "
        f"{lost['Monte Carlo EM']:.0f} for Monte Carlo EM",
    )
    assert max(COLUMNS, key=lambda column: guide[few, column]) == "wake-sleep"
    appendix = table(AEVB, "marginal-likelihood-appendix-d")
    below = sorted(annealed[cell] - appendix[cell] for cell in annealed)
    level = sorted(abs(annealed[n, "wake-sleep"] - appendix[n, "wake-sleep"]) for n in (few, many))
    assert level == below[:2] and level[1] < 0.5
    says(
        AEVB, f"by {span(below[2:])} nats for AEVB and Monte Carlo EM, and level with it for wake-"
    )


# Questions to autoencoders

QUESTIONS = "autoencoder_questions"
AT = {name: f"{name}, N_z = 2" for name in ("base", "one hidden layer", "four hidden layers")}


def paired(name):
    """The differences that are paired over images, as the text has them, by row and column."""
    with (STUDIES / QUESTIONS / f"{name}.curves.csv").open() as file:
        return {
            (row["row"], row["column"]): (float(row["difference"]), float(row["standard_error"]))
            for row in csv.DictReader(file)
        }


def test_what_a_classifier_reads():
    read = table(QUESTIONS, "what-a-classifier-reads-of-the-digit-from-the-code")
    free, told, aae = (
        read["N_z = 2", name] for name in ("VAE", "VAE, given labels", "AAE, given labels")
    )
    says(QUESTIONS, f"a classifier reads {free:.0f} % of the digits; where encoder and decoder see")
    says(QUESTIONS, f"see the label, {told:.0f} %")
    says(QUESTIONS, f"{aae:.0f} % are read")


def test_what_depth_and_the_family_are_worth():
    mean, base, one, four = table(QUESTIONS, "reconstruction-by-factor"), *AT.values()
    says(QUESTIONS, f"gains {span(mean[four, f] - mean[one, f] for f in FAMILIES)} nats")
    level = [mean[base, f] for f in FAMILIES]
    says(QUESTIONS, f"at the base all five lie within {most([max(level) - min(level)])}, and")
    for row, family, said in (
        (base, "VAE", "level with the VAE ({:.1f} ± {:.1f} nats ahead)"),
        (base, "Bayesian NN", "ahead of the Bayesian net by {:.1f} ± {:.1f}"),
        (base, "Hybrid", "and of the hybrid by {:.1f} ± {:.1f}"),
        (one, "VAE", "VAE too, by {:.1f} ± {:.1f}"),
        (four, "VAE", "and {:.1f} ± {:.1f}"),
    ):
        difference, error = paired("families")[row, family]
        says(QUESTIONS, said.format(-difference, error))
    for row, said in ((base, "{} nats at the base"), (four, "{} with four"), (one, "{} with one")):
        difference, error = paired("hybrid")[row, "Hybrid"]
        says(QUESTIONS, said.format(f"{difference:.1f} ± {error:.1f}"))


def test_what_noise_costs():
    names = ("reconstruction-by-factor", "reconstruction-under-noise-by-factor")
    clean, noisy = (table(QUESTIONS, name) for name in names)
    net, *others = ("Bayesian NN", "AE", "VAE", "Hybrid", "AAE")
    cost = {f: clean[AT["base"], f] - noisy[AT["base"], f] for f in FAMILIES}
    says(QUESTIONS, f"the Bayesian net loses {cost[net]:.0f} nats at the base")
    says(QUESTIONS, f"the four others {span(cost[f] for f in others)}")
    ahead = {
        name: span(noisy[row, net] - noisy[row, f] for f in others) for name, row in AT.items()
    }
    says(QUESTIONS, f"ahead of them by {ahead['base']}, with one hidden layer by")
    says(QUESTIONS, f"layer by {ahead['one hidden layer']}, with four by")
    says(QUESTIONS, f"with four by {ahead['four hidden layers']}")


# Stacked denoising autoencoders, and disentanglement


def test_what_labels_noise_and_layers_are_worth():
    few, error = table("denoising", "number-of-labels"), table("denoising", "test-error")
    says("denoising", f"100 labels leave {few['rect', '100']:.0f} % of the test images wrong")
    all_of_them = error["rect", "SdA-3"]
    says("denoising", f"300 leave {few['rect', '300']:.1f} % and all of them {all_of_them:.1f}")
    starts = [few["rect", f"{n}, no pretraining"] for n in ("100", "300", "1,000")]
    says("denoising", "has {:.0f}, {:.0f} and {:.1f} %".format(*starts))
    level = table("denoising", "share-that-is-masked")
    rect = [level["rect", f"{share} %"] for share in (0, 10, 25, 40, 60)]
    assert rect[0] == max(rect) and rect[3] == min(rect) == all_of_them
    layer = table("denoising", "number-of-layers")
    says("denoising", f"wrong and three {layer['rect', '3']:.2f} %")
    assert error["rect", "DBN-3"] == min(v for (row, _), v in error.items() if row == "rect")
    better = {row for row, _ in error if error[row, "SdA-3"] < error[row, "SAA-3"] - 0.3}
    assert {row.partition(",")[0] for row in better} == {
        *("bg-rand", "bg-img", "rot-bg-img", "rect-img", "rect", "convex")
    }
    codes = error["bg-rand, regenerated", "SVM on SdA-3 codes"]
    says("denoising", f"never told a class, it has {codes:.2f} % on `bg-rand`")
    vae, pixels = (error["basic, regenerated", column] for column in ("SVM on VAE codes", "SVM"))
    says("denoising", f"{vae:.2f} % on `basic`, where it has {pixels:.2f} on the pixels")
    assert vae == min(v for (row, _), v in error.items() if row.startswith("basic")) < 2.8
    for name in ("rot", "bg-rand", "bg-img", "rot-bg-img"):
        row = f"{name}, regenerated"
        vae, pixels = error[row, "SVM on VAE codes"], error[row, "SVM"]
        says("denoising", f"{vae:.2f} against {pixels:.2f} on `{name}`")
        assert vae < pixels
    means, drawn = (f"SVM on Bayesian autoencoder codes{end}" for end in (", means", ""))
    assert all(error[row, means] < error[row, drawn] for row in {row for row, _ in error})


def test_what_the_score_depends_on():
    study = "disentanglement"
    ica = {c: v for (_, c), v in table(study, "higgins-score-of-independent-components").items()}
    says(study, f"with 50 components**: {ica.pop('50 components'):.1f} %")
    says(study, f"With 20 it has {ica.pop('20 components'):.1f} %")
    assert ica.pop("log cosh") == pytest.approx(73.7, abs=0.05)
    says(study, f"found one by one, give {span(ica.values())} %")
    with (STUDIES / study / "pairs.curves.csv").open() as file:
        along = {(r["column"], r["pairs"]): float(r["score"]) for r in csv.DictReader(file)}
    one, fifty = (along["PCA", pairs] for pairs in ("1", "50"))
    says(study, f"score {one:.0f} % at L = 1 and {fifty:.0f} % at L = 50")
    large, random = (along[model, "100"] for model in ("beta-VAE", "VAE, untrained"))
    says(study, f"At L = 100 the beta-VAE has {large:.1f} %")
    says(study, f"there random weights have {random:.0f} %")
    score = {column: value for (_, column), value in table(study, "higgins-score").items()}
    says(study, f"has {score.pop('DC-IGN'):.1f} % (99.3")
    assert max(score.values()) < along["PCA", "8"]
    tc = score["beta-TCVAE"]
    says(study, f"scores {tc:.1f} %, {tc - score['beta-VAE']:.1f} points more than beta-VAE")
    with (STUDIES / study / "labels.curves.csv").open() as file:
        read = {(r["column"], r["labels"]): float(r["accuracy"]) for r in csv.DictReader(file)}
    good = ("VAE", "beta-VAE", "capacity", "beta-TCVAE")
    says(study, f"with 1,000 labels in {read['raw pixels', '1000']:.0f} %")
    says(study, f"beta-TCVAE in {span(read[m, '100'] for m in good)} % of the images")
    pixels = read["raw pixels", "100"]
    assert all(read[m, "100"] < pixels + 0.5 for m in ("DIP-VAE", "InfoGAN"))
    likelihood = {column: v for (_, column), v in table(study, "log-likelihood").items()}
    for model in ("beta-TCVAE", "VAE", "capacity"):
        says(study, f"{likelihood[model]:.1f}")
    says(study, f"{tc - score['VAE']:.0f} points behind it")
