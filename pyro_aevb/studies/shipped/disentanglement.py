r"""Disentanglement: twelve systems on 2-D shapes by the metric of Higgins et al. (2017).

The eight of the paper and four later ones, on images that are rendered by its description
(``shapes2d``): the nets of its Table 1, binary images of 64 x 64 pixels whose shape, scale,
orientation and place are known.

References:
    | beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework
    | (Higgins, Matthey, Pal, Burgess, Glorot, Botvinick, Mohamed and Lerchner, 2017)
    | https://openreview.net/forum?id=Sy2fzU9gl
"""

from functools import partial

from pyro_aevb.studies.declare import Figure, Published, Study, Table
from pyro_aevb.studies.disentangled import (
    across_choices,
    along_labels,
    along_pairs,
    means_by_factor,
    scattered,
    traversals,
)
from pyro_aevb.studies.figures import curves
from pyro_aevb.studies.shipped.disentanglement_grids import (
    ALONG,
    BETA,
    DATA,
    DCIGN,
    ICA,
    INFOGAN,
    LABELS,
    PAIRS,
    PCA,
    RAW,
    UNTRAINED,
    VAE,
    combinations,
    digits,
    linear,
    models,
    rates,
    strengths,
    whitened,
)

LIKELY = tuple(column for column in models.columns if column not in (UNTRAINED, INFOGAN))
r"""Those that were trained to make the images likely."""

SCORE = "Higgins score, in %"
PUBLISHED = {
    RAW: 45.75,
    PCA: 84.9,
    ICA: 42.03,
    UNTRAINED: 44.14,
    VAE: 61.58,
    BETA: 99.23,
    INFOGAN: 73.5,
    DCIGN: 99.3,
}
SPREADS = {
    RAW: 0.8,
    PCA: 0.4,
    ICA: 10.6,
    UNTRAINED: 2.5,
    VAE: 0.5,
    BETA: 0.1,
    INFOGAN: 0.9,
    DCIGN: 0.1,
}


def _published(*columns: str) -> Published:
    return Published(
        "Metric of Higgins et al. (2017), in per cent",
        {(DATA, column): PUBLISHED[column] for column in columns},
        remarks={
            (DATA, column): f"published ± {SPREADS[column]:g}, over the better half of 30 scores"
            for column in columns
        },
        caveat=(
            "The published data are not at hand: the images are rendered by their description. "
            f"The paper does not say L, of which all values depend; here it is {PAIRS}."
        ),
    )


CHANCE = "Of all five factors: chance is {}, and a code with a dimension for each of them has {}."
OF_FIVE = (
    (
        "Mutual information gap",
        "mig",
        3,
        CHANCE.format(0, 0.9)
        + " The value is not 1, as 20 bins do not tell 32 or 40 values apart.",
    ),
    ("DCI disentanglement", "dci_disentanglement", 3, CHANCE.format(0, 1)),
    ("Separated attribute predictability", "sap", 3, CHANCE.format(0, 0.88)),
    ("FactorVAE score", "factorvae_score", 2, CHANCE.format("20 %", "100 %")),
    ("Modularity", "modularity", 3, CHANCE.format("that of noise, far above 0", 1)),
    ("Explicitness", "explicitness", 3, CHANCE.format(0.5, 1)),
)
r"""Title, name, digits and what to read above the table."""

STUDY = Study(
    title="Disentanglement",
    text=(
        "Whether a code has a dimension for each factor that images of one shape were made of: its "
        "scale, orientation, and place. Higgins' metric is the accuracy, in per cent, with which a "
        "linear classifier tells which factor pairs of images share, from the differences of their "
        "codes; chance is 25."
    ),
    grids=[linear, models, rates, strengths, whitened, combinations, digits],
    tables=[
        Table(
            "Higgins score, without training",
            "linear",
            "test/higgins_score",
            _published(RAW, PCA, ICA),
        ),
        Table(
            "Higgins score",
            "models",
            "metric/higgins_score",
            _published(UNTRAINED, VAE, BETA, INFOGAN, DCIGN),
        ),
        Table(
            "Higgins score, better half",
            "models",
            "metric/higgins_score",
            better_half=True,
            text="The mean and the standard deviation of the better half of all scores of a row, "
            "three of each seed: what was published, of 30. Blank where only their mean was kept.",
        ),
        *(
            Table(title, "models", f"others/{name}", places=places, text=text)
            for title, name, places, text in OF_FIVE
        ),
        Table("ELBO", "models", "test/elbo"),
        Table("Log-likelihood", "models", "test/log_likelihood"),
        Table("Reconstruction", "models", "test/reconstruction"),
        Table("KL of the codes", "models", "test/kl"),
        Table("Higgins score by optimizer", "rates", "metric/higgins_score"),
        Table("Log-likelihood by optimizer", "rates", "test/log_likelihood"),
        Table("Higgins score by beta", "strengths", "metric/higgins_score"),
        Table("Mutual information gap by beta", "strengths", "others/mig", places=3),
        Table("Log-likelihood by beta", "strengths", "test/log_likelihood"),
        Table(
            "Reconstruction of new images of combinations that were seen",
            "combinations",
            "history/reconstruction",
            text="Hearts in the lower right quarter were held out of training; these are others.",
        ),
        Table(
            "Reconstruction of combinations that were never seen",
            "combinations",
            "test/reconstruction",
            text="Hearts in the lower right quarter.",
        ),
        Table("Higgins score of independent components", "ica", "test/higgins_score"),
        Table("Log-likelihood of digits", "digits", "test/log_likelihood"),
    ],
    figures=[
        Figure(
            "pairs",
            "The score against L, the number of pairs that a point is the mean of. Published "
            "values, whose L is not known, as lines across.",
            partial(along_pairs, pairs=ALONG, headline=PAIRS, beside="linear", published=PUBLISHED),
            "models",
        ),
        Figure(
            "choices",
            "What other choices of the metric's constants move the score by, at the same L.",
            partial(across_choices, beside="linear"),
            "models",
        ),
        Figure(
            "steps",
            "The score along the training.",
            partial(curves, quantities={"score": "metric/higgins_score"}, ylabel=SCORE),
            "models",
        ),
        *(
            Figure(
                name,
                f"The score against the {quantity} of test images.",
                partial(
                    scattered,
                    x=f"test/{quantity.replace('-', '_')}",
                    y="metric/higgins_score",
                    labels=(f"{quantity}, nats per image", SCORE),
                ),
                "models",
                columns=LIKELY,
            )
            for name, quantity in (
                ("likelihood", "log-likelihood"),
                ("reconstruction", "reconstruction"),
            )
        ),
        Figure(
            "information",
            "The KL of the codes against the reconstruction of test images, as beta grows.",
            partial(
                scattered,
                x="test/kl",
                y="test/reconstruction",
                labels=(
                    "KL of codes from the prior, nats per image",
                    "reconstruction, nats per image",
                ),
            ),
            "strengths",
        ),
        Figure(
            "labels",
            "How often the shape is told right from the code, by a linear classifier that has seen "
            "so many labels.",
            partial(along_labels, counts=LABELS, beside="linear"),
            "models",
        ),
        Figure(
            "traversals",
            "What each dimension of the code does to one image, from -2 to 2, the dimensions in "
            "the order of how much their means vary.",
            traversals,
            "models",
        ),
        Figure(
            "digits",
            "What each dimension of the code does to a digit, from -2 to 2, the dimensions in the "
            "order of how much their means vary.",
            traversals,
            "digits",
        ),
        Figure(
            "means",
            "The mean of each dimension of the code, for one shape, over its place (a map), its "
            "orientation and its scale (curves), all else fixed.",
            means_by_factor,
            "models",
        ),
    ],
)
