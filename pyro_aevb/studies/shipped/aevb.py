r"""AEVB: against an autoencoder without noise, and against other ways to learn.

The comparisons of Kingma and Welling, "Auto-Encoding Variational Bayes" (2014,
https://arxiv.org/abs/1312.6114), figures 2 and 3, which give no numbers, and of Ravaux and Adler,
"Auto-encoding Variational Bayes" (course project), which gives none either.
"""

from functools import partial

from pyro_aevb.studies.declare import (
    Figure,
    Grid,
    Key,
    Settings,
    Study,
    Table,
    merged,
)
from pyro_aevb.studies.figures import codes, curves, generated, growing_noise, reconstructions


def size(latent_dim: int) -> Settings:
    return {"pair_parameters": {"latent_dim": latent_dim}}


SIZES = (3, 5, 10, 20, 200)
SMOKE: Settings = {
    "data": "digits",
    "epochs": 2,
    "num_samples": 5,
    "num_data": 10,
    "pair_parameters": {"hidden": [32]},
}
QUICK: Settings = {**SMOKE, "proposal": "guide"}

# Ravaux and Adler: 40 epochs of Adam at 1e-3 in batches of 100, one hidden layer of 500, the
# initialization of PyTorch. They do not say how pixels are presented; their loss is the binary
# cross-entropy, so grey. The third column has likelihoods that are normalized.
latent = Grid(
    "latent-dimensions",
    rows={str(n): size(n) for n in (2, *SIZES)},
    columns={
        "AE": {"pair": "Autoencoder"},
        "VAE": {"pair": "VAE"},
        "VAE, binarized": {"pair": "VAE", "binarize": "dynamic"},
    },
    settings={
        "data": "mnist",
        "binarize": "none",
        "batch_size": 100,
        "lr": 1e-3,
        "epochs": 40,
        "num_samples": 1000,
        "pair_parameters": {"hidden": [500], "output_bias": "init"},
    },
    smoke=QUICK,
    smoke_rows=("2", "3"),
    row_title="N_z",
    chosen="the published protocol as far as it is known: how pixels are presented, the activation "
    "(tanh here) and the start of the weights (that of PyTorch) are not stated there. Two "
    "dimensions and the binarized column are additions. Nothing was chosen.",
)

# Kingma and Welling: one hidden layer, all parameters from N(0, 0.01), which can be read as a
# standard deviation of 0.01 or of 0.1, Adagrad with a global step from {0.01, 0.02, 0.1}, batches
# of 100, one sample, a standard normal prior over the parameters.
PAPER: Settings = {
    "pair": "VAE",
    "binarize": "none",
    "batch_size": 100,
    "optimizer": "adagrad",
    "map_prior": 1.0,
    "num_samples": 1000,
    "pair_parameters": {"output_bias": "init"},
}
MNIST: Settings = {"data": "mnist", "epochs": 200, "pair_parameters": {"hidden": [500]}}
FREY: Settings = {
    "data": "frey_face",
    "epochs": 2000,
    "pair_parameters": {"hidden": [200], "likelihood": "gaussian_sigmoid"},
}
ALGORITHMS: dict[str, Settings] = {"AEVB": {}, "wake-sleep": {"algorithm": "wake_sleep"}}
MARGINAL_ALGORITHMS: dict[str, Settings] = {
    **ALGORITHMS,
    "Monte Carlo EM": {"algorithm": "monte_carlo_em"},
}
SMALL: Settings = merged({"pair_parameters": {"hidden": [100]}}, size(3))
THOUSAND = merged(SMALL, {"data": "mnist:1000", "epochs": 2000})
FIFTY_THOUSAND = merged(SMALL, {"data": "mnist:50000", "epochs": 100})
SUBSETS = {"1,000 images": THOUSAND, "50,000 images": FIFTY_THOUSAND}

# The step of Adagrad and the standard deviation at the start, for each data set and algorithm.
FIRST: dict[str, Settings] = {
    "MNIST, N_z = 10": merged(MNIST, size(10), {"epochs": 10}),
    "MNIST, N_z = 200": merged(MNIST, size(200), {"epochs": 10}),
    "Frey Face, N_z = 10": merged(FREY, size(10), {"epochs": 200}),
    "1,000 images": merged(THOUSAND, {"epochs": 200}),
    "50,000 images": merged(FIFTY_THOUSAND, {"epochs": 5}),
}
STARTS: dict[str, Settings] = {
    f"step {lr}{name}": {"lr": lr, "pair_parameters": {"init": init}}
    for name, init in (("", "aevb"), (", std 0.1", "aevb_std0.1"))
    for lr in (0.01, 0.02, 0.1)
}
CANDIDATES = {
    f"{name}, {start}": merged(FIRST[name], STARTS[start]) for name in FIRST for start in STARTS
}
steps = Grid(
    "steps",
    rows=CANDIDATES,
    columns=MARGINAL_ALGORITHMS,
    # Of test data a few are scored, since `fit` does, and looked at by nobody.
    settings=merged(PAPER, {"num_samples": 1, "num_data": 100}),
    special={
        **{(row, "Monte Carlo EM"): None for row in CANDIDATES if "N_z" in row},
        ("MNIST, N_z = 200, step 0.1", "wake-sleep"): None,  # becomes infinite within an epoch
    },
    smoke=QUICK,
    smoke_rows=("Frey Face, N_z = 10, step 0.1", "1,000 images, step 0.1"),
    row_title="data and start",
    most_seeds=1,
    chosen="nothing: these are the candidates, one seed of each. Nothing in this study was chosen "
    "on test data.",
)
# What `steps` finds, by data set or row, and algorithm.
FOUND: dict[Key, str] = {
    ("MNIST", "AEVB"): "step 0.02, std 0.1",
    ("MNIST", "wake-sleep"): "step 0.02, std 0.1",
    ("MNIST, N_z = 200", "AEVB"): "step 0.02",
    ("MNIST, N_z = 200", "wake-sleep"): "step 0.01",
    ("Frey Face", "AEVB"): "step 0.01, std 0.1",
    ("Frey Face", "wake-sleep"): "step 0.01, std 0.1",
    ("1,000 images", "AEVB"): "step 0.1, std 0.1",
    ("1,000 images", "wake-sleep"): "step 0.1, std 0.1",
    ("1,000 images", "Monte Carlo EM"): "step 0.02",
    ("50,000 images", "AEVB"): "step 0.1, std 0.1",
    ("50,000 images", "wake-sleep"): "step 0.02, std 0.1",
    ("50,000 images", "Monte Carlo EM"): "step 0.02",
}


def start(data: str, algorithm: str, row: str = "") -> Settings:
    r"""What `steps` finds for a data set and an algorithm, or for a row of its own."""
    return STARTS[FOUND.get((row, algorithm)) or FOUND[data, algorithm]]


STEP = (
    "the published protocol, a tenth of its length and less, with the start and the step of "
    "Adagrad that `steps` finds on validation data (the publication: on the training bound), those "
    "of N_z = 10 for all sizes but 200; Monte Carlo EM is judged there by the bound of the guide "
    "that is fitted to its draws."
)

BINARIZED: Settings = merged(MNIST, size(10), {"binarize": "dynamic"})
CODES: dict[str, dict[str, Settings]] = {
    "MNIST": {
        **{f"MNIST, N_z = {n}": merged(MNIST, size(n)) for n in SIZES},
        "MNIST, N_z = 10, binarized": BINARIZED,
    },
    "Frey Face": {f"Frey Face, N_z = {n}": merged(FREY, size(n)) for n in (2, 5, 10, 20)},
}
bounds = Grid(
    "wake-sleep",
    rows={row: settings for rows in CODES.values() for row, settings in rows.items()},
    columns=ALGORITHMS,
    special={
        (row, algorithm): start(data, algorithm, row)
        for data, rows in CODES.items()
        for row in rows
        for algorithm in ALGORITHMS
    },
    settings=merged(PAPER, {"num_samples": 100}),
    looks=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
    smoke=QUICK,
    smoke_rows=("MNIST, N_z = 3", "MNIST, N_z = 10, binarized", "Frey Face, N_z = 2"),
    chosen=f"{STEP} MNIST has 55,000 training images here, and 50,000 there. The binarized row, "
    "with the step and the start of the grey one, is an addition.",
)

# 100 hidden units and three latent dimensions, so that the marginal likelihood can be estimated,
# of the first 1,000 test images: by importance sampling, which needs the guide that Monte Carlo EM
# fits to its draws and does not use; without a guide by annealed importance sampling, a lower
# bound; and in the end by the estimator of their appendix D, which errs upwards. How far annealing
# may be too low is seen on images that the model simulates, where there is an upper bound too.
TEMPERATURES: Settings = {"num_samples": None, "estimator_options": {"num_temperatures": 100}}
marginal = Grid(
    "marginal-likelihood",
    rows=SUBSETS,
    columns=MARGINAL_ALGORITHMS,
    special={(row, name): start(row, name) for row in SUBSETS for name in MARGINAL_ALGORITHMS},
    settings=merged(PAPER, {"num_data": 1000}),
    scores={
        "ais": {"estimator": "ais", **TEMPERATURES},
        "bdmc": {"estimator": "bdmc", "num_data": 100, **TEMPERATURES},
        "reciprocal": {"estimator": "reciprocal", "num_samples": None},
    },
    look_scores=("ais",),
    looks=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
    smoke={**SMOKE, "data": "digits:500"},
    smoke_rows=("1,000 images",),
    smoke_scores={
        "ais": {"estimator_options": {"num_chains": 2, "num_temperatures": 10}},
        "bdmc": {"estimator_options": {"num_chains": 2, "num_temperatures": 10}, "num_data": 20},
        "reciprocal": {"estimator_options": {"num_temperatures": 10, "burn_in": 5}},
    },
    chosen=f"{STEP} Its chains, one for each image, go on from step to step, of which the "
    "publication says nothing.",
)

LATENT = "latent-dimensions"
CHOICE = (
    "The lower bound on validation data after the first epochs (10 on MNIST, 200 on Frey Face and "
    "with 1,000 images, 5 with 50,000), by which the steps were chosen; those that are millions "
    "below have diverged, and the blank one of wake-sleep to infinity; N_z = 10 stands for the "
    "other sizes, but for 200. Parameters start from a normal with a standard "
    "deviation of 0.01, or of 0.1: the publication says N(0, 0.01)."
)
GREY = (
    "Grey pixels, so a cross-entropy; the binarized column is of other data and not to be compared "
    "with the others."
)
TAIL = (
    "Pareto k, the mean over images, of the weights that the bound averages; above 0.7 it is "
    "unreliable as an estimate of the log-likelihood, and mostly too low."
)
WEIGHTED = "A bound on the log-likelihood, by 1,000 draws of the guide."
DREAMS = (
    "MNIST is grey, its likelihood a cross-entropy. Images that a model draws in wake-sleep are "
    "binary, so its guide learns from other images than it is used on; not so in the binarized "
    "row, which is of other data and not to be compared with the others."
)
UNEVEN = (
    "Grey pixels, so a cross-entropy, here and in the tables below. Of the first 1,000 test "
    "images; for Monte Carlo EM with the guide that is fitted to its draws and not used in it."
)
OVERFIT = (
    "Of all training images: the publication shows the marginal likelihood of these too; here "
    "there is the bound alone."
)
BY_GUIDE = (
    "Of 1,000 test images, with 1,000 draws from the guide: a lower bound, and a loose one where "
    "the guide is poor on test images. That of Monte Carlo EM is fitted to its draws alone."
)
ANNEALED = (
    "The same by annealed importance sampling, which needs no guide: a lower bound in expectation, "
    "and the one to compare the algorithms by."
)
SIMULATED = (
    "Between a lower and an upper bound by annealing with the same temperatures, of the "
    "log-likelihood of 100 images that the model simulates: about how far the annealed values may "
    "be too low, as far as test images are like those."
)
RECIPROCAL = (
    "By the estimator that the publication used, here with chains that start from annealing. It "
    "errs upwards if its Markov chains draw from "
    "the posterior; where it lies below the annealed lower bound they do not: chains that are "
    "stuck where the posterior has little mass make it too low."
)

ESTIMATES = {"annealed": "ais/ais_lower", "by the guide": "test/iwae_bound"}

STUDY = Study(
    title="Auto-encoding variational Bayes",
    text="An autoencoder without noise against a VAE at growing sizes of the code, as Ravaux and "
    "Adler compared them, and AEVB against wake-sleep and Monte Carlo EM, as in figures 2 and 3 of "
    "Kingma and Welling (2014), <https://arxiv.org/abs/1312.6114>. Neither publication has "
    "numbers. The claims: the autoencoder reconstructs better than the VAE at every size and does "
    "not generate; according to Ravaux and Adler, 200 latent dimensions give a very poor bound, "
    "according to Kingma and Welling, superfluous ones do no harm; AEVB is faster and better than "
    "wake-sleep throughout; Monte Carlo EM keeps up with 1,000 images and not with 50,000.",
    grids=(latent, steps, bounds, marginal),
    tables=(
        Table("Lower bound by size of the code", LATENT, "test/elbo", text=GREY),
        Table(
            "Importance-weighted bound by size of the code",
            LATENT,
            "test/iwae_bound",
            text=f"{WEIGHTED} {GREY}",
        ),
        Table("Reconstruction by size of the code", LATENT, "test/reconstruction", text=GREY),
        Table("KL by size of the code", LATENT, "test/kl", lower_is_better=True),
        Table(
            "Tail of the importance weights by size of the code",
            LATENT,
            "test/iwae_bound.pareto_k",
            text=TAIL,
        ),
        Table("Active units by size of the code", LATENT, "test/active_units", places=1),
        Table(
            "Starts and steps of Adagrad, on validation data",
            steps.name,
            "history/elbo",
            text=CHOICE,
        ),
        Table("Lower bound, AEVB and wake-sleep", bounds.name, "test/elbo", text=DREAMS),
        Table("Lower bound, 1,000 and 50,000 images", marginal.name, "test/elbo", text=UNEVEN),
        Table("The same on training images", marginal.name, "test/training_elbo", text=OVERFIT),
        Table(
            "Marginal likelihood, importance sampling",
            marginal.name,
            "test/iwae_bound",
            text=BY_GUIDE,
        ),
        Table(
            "Tail of those importance weights",
            marginal.name,
            "test/iwae_bound.pareto_k",
            text=TAIL,
        ),
        Table("Marginal likelihood, annealed", marginal.name, "ais/ais_lower", text=ANNEALED),
        Table(
            "How far annealing may be too low",
            marginal.name,
            "bdmc/bdmc_gap",
            lower_is_better=True,
            text=SIMULATED,
        ),
        Table(
            "Marginal likelihood, appendix D",
            marginal.name,
            "reciprocal/reciprocal",
            text=RECIPROCAL,
        ),
        Table("Seconds per epoch", marginal.name, "seconds_per_epoch", lower_is_better=True),
    ),
    figures=(
        Figure(
            "reconstruction-by-epoch",
            "Log-likelihood of the pixels given the code, on validation data; first epochs may "
            "fall below the axis.",
            partial(curves, quantities={"reconstruction": "history/reconstruction"}),
            LATENT,
            columns=["AE", "VAE"],
        ),
        Figure(
            "bound-by-epoch",
            "The lower bound, on validation data; grey and binarized ones are not to be compared, "
            "and first epochs may fall below the axis.",
            partial(curves, quantities={"lower bound": "history/elbo"}),
            LATENT,
            columns=["VAE", "VAE, binarized"],
        ),
        *(
            Figure(name, caption, draw, LATENT, rows, columns=["AE", "VAE"])
            for name, caption, draw, rows in (
                (
                    "reconstructions",
                    "Test images and their reconstructions.",
                    reconstructions,
                    None,
                ),
                (
                    "generated",
                    "Draws of the code, decoded: from the prior of the VAE, and for the "
                    "autoencoder, which has none, from a normal fitted to the codes, independent "
                    "in each dimension.",
                    generated,
                    None,
                ),
                (
                    "noise-on-codes",
                    "The code of a test image with one draw of normal noise, times 0, 0.25, ..., "
                    "2.5: at 1 it has in each dimension the standard deviation of the codes.",
                    growing_noise,
                    None,
                ),
                ("codes", "Test images encoded into two dimensions.", codes, ["2"]),
            )
        ),
        Figure(
            "wake-sleep",
            "The lower bound against training images seen; first epochs may fall below the axis.",
            partial(
                curves,
                quantities={"training": "test/training_elbo", "test": "test/elbo"},
                x="images",
            ),
            bounds.name,
        ),
        Figure(
            "marginal-by-images",
            "The marginal likelihood of test images against the training images seen, by annealing "
            "and by importance sampling with the guide, a lower bound that also tells how well the "
            "guide knows test images.",
            partial(curves, quantities=ESTIMATES, x="images"),
            marginal.name,
        ),
        Figure(
            "marginal-by-seconds",
            "The same against the seconds of training.",
            partial(curves, quantities=ESTIMATES, x="seconds"),
            marginal.name,
        ),
    ),
)
