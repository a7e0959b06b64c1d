r"""What the comparison of autoencoders leaves open: what its results depend on, and its uses.

Wacker and Ibarrondo, "Comparing Autoencoders" (2018), close with questions: other likelihoods,
other and smaller data, the weight of the KL and the prior. Here one factor moves at a time from a
base. Their first slides name what autoencoders are for: content and style apart, and compression.
"""

from functools import partial

from pyro_aevb.studies.declare import Figure, Grid, Key, Settings, Study, Table, merged
from pyro_aevb.studies.differences import paired_differences
from pyro_aevb.studies.figures import along, dots, styles

NOISE: Settings = {"corruption": "gaussian", "corruption_options": {"std": 0.1, "clip": True}}
HIDDEN = [128, 64]
BASE: Settings = {
    "data": "mnist",
    "binarize": "none",
    "batch_size": 128,
    "lr": 1e-3,
    "schedule": "cosine",
    "epochs": 20,
    "num_samples": 100,
    "weight_samples": 5,
    "num_data": 500,
    "pair_parameters": {"init": "glorot", "hidden": HIDDEN},
}
UNUSED: Settings = dict.fromkeys(("num_samples", "weight_samples", "proposal", "num_data"))
SCORES: dict[str, Settings] = {
    "noisy": {**NOISE, "num_samples": 10, "num_data": 500},
    "prediction": {"estimator": "prediction", **UNUSED},
}
SMOKE: Settings = {
    "data": "digits",
    "epochs": 1,
    "num_samples": 5,
    "weight_samples": 2,
    "num_data": 20,
    "proposal": "guide",
    "pair_parameters": {"hidden": [8]},
}
SMOKE_SCORES: dict[str, Settings] = {"noisy": {"num_samples": 2, "num_data": 20}}

AE, BNN, VAE, HYBRID, AAE = "AE", "Bayesian NN", "VAE", "Hybrid", "AAE"
WEIGHTS: Settings = {"weight_noise": "local", "num_particles": 1}
FAMILIES: dict[str, Settings] = {
    AE: {"pair": "Autoencoder"},
    BNN: merged(WEIGHTS, {"pair": "BayesianAutoencoder"}),
    VAE: {"pair": "VAE"},
    HYBRID: merged(WEIGHTS, {"pair": "BayesianVAE"}),
    AAE: {"pair": "AdversarialAutoencoder"},
}


def of_pair(**parameters: object) -> Settings:
    return {"pair_parameters": parameters}


# Of few data an epoch has few steps: as many epochs as training goes on getting better.
MOVES: dict[str, Settings] = {
    "base": {},
    "Gaussian": of_pair(likelihood="gaussian_sigmoid"),
    "continuous Bernoulli": of_pair(likelihood="continuous_bernoulli"),
    "Fashion-MNIST": {"data": "fashion_mnist"},
    "CIFAR-10, 10,000 images": {"data": "cifar10", "epochs": 60},
    "200 images": {"data": "mnist:200", "epochs": 1000, "patience": 100, "schedule": "constant"},
    "2,000 images": {"data": "mnist:2000", "epochs": 300, "patience": 30, "schedule": "constant"},
    "KL of the codes x 0.1": {"beta": 0.1},
    "KL of the codes x 4": {"beta": 4.0},
    "KL of the weights x 0.01": {"beta": 0.01},
    "prior of the weights fixed": of_pair(prior="fan_in"),
    "prior of the weights fixed, x 0.3": of_pair(prior="fan_in", prior_scale=0.3),
    "prior of the weights fixed, x 3": of_pair(prior="fan_in", prior_scale=3.0),
    "half the units": of_pair(hidden=[64, 32]),
    "twice the units": of_pair(hidden=[256, 128]),
    "one hidden layer": of_pair(hidden=[128]),
    "four hidden layers": of_pair(hidden=[128, 128, 64, 64]),
}
OF_CODES, OF_WEIGHTS = (VAE, HYBRID), (BNN, HYBRID)
ONLY = {
    **{row: OF_CODES for row in MOVES if row.startswith("KL of the codes")},
    "KL of the weights x 0.01": (BNN,),
    **{row: OF_WEIGHTS for row in MOVES if row.startswith("prior")},
}
r"""The families that have what a move is of; the KL of a hybrid's weights has no setting."""
SIZES = (2, 32)
BOTH_SIZES = (
    *("base", "Gaussian", "2,000 images", "four hidden layers"),
    *("KL of the codes x 0.1", "KL of the codes x 4", "KL of the weights x 0.01"),
)
r"""The moves that are made with codes of either size; the others with two dimensions, to keep the
study within a day of one core, and CIFAR-10, of which two dimensions keep next to nothing, with
32."""
OTHER_NATS = ("Gaussian", "continuous Bernoulli", "Fashion-MNIST", "CIFAR-10, 10,000 images")
r"""The moves to another likelihood or other images, whose nats are not those of the base."""


def called(size: int, move: str) -> str:
    return f"{move}, N_z = {size}"


def adversary(row: Settings) -> Settings:
    r"""A discriminator of the decoder's widths; of two dimensions with a slow generator, which the
    search of :mod:`~.bayesian_autoencoders` finds."""
    hidden = merged(BASE, row)["pair_parameters"]["hidden"][::-1]
    slow = {"algorithm_options": {"generator_rate": 0.03}}
    small = row["pair_parameters"]["latent_dim"] == 2
    return merged(of_pair(discriminator_hidden=hidden), slow if small else {})


def sizes(move: str) -> tuple[int, ...]:
    if move.startswith("CIFAR-10"):
        return SIZES[1:]
    return SIZES if move in BOTH_SIZES else SIZES[:1]


ROWS = {
    called(size, move): merged(settings, of_pair(latent_dim=size))
    for move, settings in MOVES.items()
    for size in sizes(move)
}
SPECIAL: dict[Key, Settings | None] = {
    **{(row, AAE): adversary(settings) for row, settings in ROWS.items()},
    **{
        (called(size, move), family): None
        for move, families in ONLY.items()
        for size in sizes(move)
        for family in FAMILIES
        if family not in families
    },
}
factors = Grid(
    "factors",
    rows=ROWS,
    columns=FAMILIES,
    settings=BASE,
    special=SPECIAL,
    scores=SCORES,
    smoke=SMOKE,
    smoke_scores=SMOKE_SCORES,
    smoke_rows=[called(2, move) for move in ("base", "Gaussian", "KL of the codes x 4")],
    most_seeds=3,
    chosen="nothing: a base with the widths 128-64 of the publication, 20 epochs, a rate that "
    "falls from 1e-3, objectives as they are derived, and one factor moved at a time. With 200 and "
    "2,000 training images training stops when the validation value has not risen for 100 and 30 "
    "epochs.",
)

GIVEN = ", given labels"
TOLD: dict[str, Settings] = {
    VAE: FAMILIES[VAE],
    VAE + GIVEN: {"pair": "ConditionalVAE"},
    HYBRID: FAMILIES[HYBRID],
    HYBRID + GIVEN: merged(WEIGHTS, {"pair": "ConditionalBayesianVAE"}),
    AAE: FAMILIES[AAE],
    AAE + GIVEN: {"pair": "ConditionalAdversarialAutoencoder"},
}
STYLES = {f"N_z = {size}": of_pair(latent_dim=size) for size in (2, 8)}
content = Grid(
    "content-and-style",
    rows=STYLES,
    columns=TOLD,
    settings=BASE,
    special={
        (row, column): adversary(settings)
        for row, settings in STYLES.items()
        for column in (AAE, AAE + GIVEN)
    },
    scores={"probe": {"estimator": "probe", **UNUSED}, **SCORES},
    smoke=SMOKE,
    smoke_scores=SMOKE_SCORES,
    smoke_rows=["N_z = 2"],
    row_title="size of the code",
    most_seeds=3,
    chosen="nothing: the base of the factors, with the label as a column that encoder and decoder "
    "see (*given labels*), or without.",
)

LENGTHS = {str(length): of_pair(latent_dim=length) for length in (2, 4, 8, 16, 32, 64)}
compression = Grid(
    "compression",
    rows=LENGTHS,
    columns={
        AE: FAMILIES[AE],
        VAE: FAMILIES[VAE],
        "VAE, noise in training": merged(FAMILIES[VAE], NOISE),
    },
    settings=BASE,
    scores=SCORES,
    smoke=SMOKE,
    smoke_scores=SMOKE_SCORES,
    smoke_rows=["2"],
    smoke_columns=[AE, "VAE, noise in training"],
    row_title="length of the code",
    most_seeds=3,
    chosen="nothing: the base of the factors.",
)
linear = Grid(
    "compression-linear",
    rows={length: {"components": int(length)} for length in LENGTHS},
    columns={"PCA": {"by": "pyro_aevb.studies.linear_codes:pca_reconstruction"}},
    settings={"data": "mnist"},
    smoke={"data": "digits"},
    smoke_rows=["2", "8"],
    row_title="length of the code",
    most_seeds=1,
    chosen="nothing: principal components of the 55,000 training images.",
)

NATS = (
    "In nats per image, and of different kinds: those of a Bernoulli are a cross-entropy of grey "
    "levels, those of the Gaussian and the continuous Bernoulli log-densities, and those of other "
    "data of other images. Compare the families within a row."
)
RMSE = (
    "The root mean square distance of a pixel, in [0, 1], from the mean that is predicted for it "
    "from the image's own code, averaged over 10 draws: the same quantity for all likelihoods."
)
CALIBRATION = (
    "By how much the mean of pixels differs from what was predicted for them, over 15 bins of the "
    "prediction: 0 of a mean that can be believed."
)
PLACES = 4
STUDY = Study(
    title="Questions to autoencoders",
    text="What the comparison of [Bayesian autoencoders](bayesian_autoencoders.md) depends on: the "
    "questions that close the slides of Wacker and Ibarrondo (2018), one factor moved at a time; "
    "and the uses that open them: content and style apart, and compression. Nothing is published "
    "of these.",
    grids=(factors, content, compression, linear),
    tables=(
        Table(
            "Distance of a pixel, by factor",
            "factors",
            "prediction/rmse",
            lower_is_better=True,
            places=PLACES,
            text=RMSE,
        ),
        Table(
            "Calibration of the predicted means, by factor",
            "factors",
            "prediction/mean_calibration_error",
            lower_is_better=True,
            places=PLACES,
            text=CALIBRATION,
        ),
        Table("Reconstruction, by factor", "factors", "test/reconstruction", text=NATS),
        Table("Reconstruction under noise, by factor", "factors", "noisy/reconstruction"),
        Table("ELBO, by factor", "factors", "test/elbo", text=NATS),
        Table("Log-likelihood, by factor", "factors", "test/log_likelihood", text=NATS),
        Table(
            "What a classifier reads of the digit from the code",
            "content-and-style",
            "probe/label_accuracy",
            lower_is_better=True,
            places=1,
            text="The accuracy, in per cent, of a support vector machine that was fitted to 5,000 "
            "codes of training images; chance is 11.4. A code that is style alone should leave it "
            "at that.",
        ),
        Table(
            "Log-likelihood, given the label or not",
            "content-and-style",
            "test/log_likelihood",
            text="Of an image given its label where the pair is told it; the label itself is worth "
            "up to 2.3 nats.",
        ),
        Table(
            "Distance of a pixel, given the label or not",
            "content-and-style",
            "prediction/rmse",
            lower_is_better=True,
            places=PLACES,
        ),
        Table(
            "Nats by length of the code",
            "compression",
            "test/reconstruction",
            text="The cross-entropy of the pixels, given their code.",
        ),
        Table(
            "Nats by number of principal components",
            "compression-linear",
            "test/reconstruction",
            text="PCA is not trained for them; reconstructions are kept within 0.001 of 0 and 1.",
        ),
        Table(
            "Nats under noise by length of the code",
            "compression",
            "noisy/reconstruction",
            text="Of images with Gaussian noise of standard deviation 0.1, the clean image as the "
            "target.",
        ),
    ),
    figures=(
        *(
            Figure(
                f"factors-{size}",
                "Reconstruction of clean and of noisy images in nats, by family, as one factor is "
                f"moved: grey MNIST, Bernoulli likelihood, {size} dimensions.",
                partial(
                    dots,
                    quantities={"clean": "test/reconstruction", "noisy": "noisy/reconstruction"},
                    xlabel="nats per datum, higher is better",
                ),
                "factors",
                rows=[
                    called(size, move)
                    for move in MOVES
                    if size in sizes(move) and move not in OTHER_NATS
                ],
            )
            for size in SIZES
        ),
        Figure(
            "families",
            "By how much images are reconstructed better or worse than by the autoencoder: paired "
            "over images, with two standard errors.",
            partial(
                paired_differences,
                reference=AE,
                quantity="test/reconstruction",
                label=f"reconstruction, nats above {AE}",
            ),
            "factors",
        ),
        Figure(
            "hybrid",
            "By how much the log-likelihood of the hybrid is above that of the VAE: paired over "
            "images, with two standard errors.",
            partial(
                paired_differences,
                reference=VAE,
                quantity="test/log_likelihood",
                label=f"log-likelihood, nats above {VAE}",
            ),
            "factors",
            columns=[VAE, HYBRID],
        ),
        Figure(
            "styles",
            "Content and style: codes of six test images, a row each, with each of the ten labels.",
            styles,
            "content-and-style",
            rows=["N_z = 2"],
            columns=[VAE + GIVEN, HYBRID + GIVEN, AAE + GIVEN],
        ),
        Figure(
            "distance-by-length",
            "The distance of a pixel from its reconstruction against the length of the code.",
            partial(
                along,
                quantity="prediction/rmse",
                beside={linear.name: "test/rmse"},
                xlabel="length of the code",
                ylabel="root mean square distance of a pixel",
            ),
            "compression",
        ),
    ),
)
