r"""The networks that are timed, and how much of the data a timed round covers."""

from dataclasses import dataclass

PIXELS = 784


@dataclass(frozen=True)
class Network:
    r"""What is trained, and by whom.

    Arguments:
        title: As tables call it.
        hidden: Widths of the hidden layers, or channels if `kind` is ``"conv"``.
        latent: Dimensions of the code.
        batch: Data per step.
        particles: 1 is the ELBO, more the importance-weighted bound.
        kind: ``"mlp"``, ``"conv"``, or ``"weights"``: an autoencoder of point codes whose weights
            have mean-field normal posteriors.
        images: Images of a timed round, cut to whole batches; fewer than an epoch where one would
            take minutes. Times are given per step and, extrapolated, per epoch.
        peers: Who takes part, by the names in :mod:`benchmarks.peers`.
        side: The side of an image: 28 of MNIST, or 64 of ``shapes2d``.
        apart: How far from the first, relatively, a contender's loss may be after training.
    """

    title: str
    hidden: tuple[int, ...]
    latent: int
    batch: int
    peers: tuple[str, ...]
    particles: int = 1
    kind: str = "mlp"
    images: int = 60_000
    side: int = 28
    apart: float = 0.05

    @property
    def pixels(self) -> int:
        return self.side**2


PROJECT = ("project-eager", "project", "project-medium")
FLOORS = ("floor", "floor-fastest")
EVERYONE = ("pytorch", "pytorch-loader", "pyro", "numpyro", "pythae", *PROJECT, *FLOORS)

NETWORKS = {
    "mlp100": Network("784-500-20, batch 100", (500,), 20, 100, EVERYONE),
    "mlp512": Network("784-500-20, batch 512", (500,), 20, 512, EVERYONE),
    "mlp4096": Network("784-500-20, batch 4096", (500,), 20, 4096, EVERYONE),
    "deep1": Network("784-200-200-50, batch 100", (200, 200), 50, 100, EVERYONE),
    "deep50": Network(
        "784-200-200-50, IWAE with 50 particles, batch 100",
        (200, 200),
        50,
        100,
        ("pytorch", "pyro", *PROJECT, *FLOORS),
        particles=50,
        images=3_000,
    ),
    "shapes2d": Network(
        "4096-1200-1200-10, images of shapes2d, batch 64",
        (1200, 1200),
        10,
        64,
        ("pytorch", *PROJECT, *FLOORS),
        images=12_800,
        side=64,
        apart=0.15,  # after some 800 steps the loss still falls fast, by another path for each
    ),
    "conv": Network(
        "convolutional 32-64, code 20, batch 100",
        (32, 64),
        20,
        100,
        ("pytorch", *PROJECT),
        kind="conv",
        images=6_000,
    ),
    "weights": Network(
        "784-256-32, mean-field normal weights in both nets, batch 100",
        (256,),
        32,
        100,
        ("pyro", "pyro-point", "project", "project-local", "project-flipout", "project-point"),
        kind="weights",
        images=12_000,
    ),
}
