r"""What arrays, columns and folders are called that are the splits, the data, or the labels."""

import re

SPLITS = TRAIN, VALID, TEST = ("train", "valid", "test")
CALLED = {TRAIN: "training", VALID: "validation", TEST: "test"}
r"""What the data of each are called in sentences."""
WHOLE = "images"
r"""In place of a split, the name of data that are not split."""
ALIASES = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("valid", "val", "validation", "dev"), VALID),
    **dict.fromkeys(("test", "testing"), TEST),
}
r"""What the splits are called, in any case, as folders and in the names of arrays."""
SEQUENCES = {"sequence", "sequences"}
r"""What data are called that are sequences, and no images."""
DATA = {"images", "image", "x", "data"} | SEQUENCES
LABELS = {"labels", "label", "y", "targets", "target"}
r"""What an array may be called besides its split, as in ``train_labels`` and ``y_train``."""
LENGTHS = ("length", "lengths")
r"""What the column is called that says how much of a sequence counts."""
ROWS = "row_names"
r"""The array of what the data are called one by one, or ``train_row_names`` and so on."""
SPLIT = "split"
r"""The column of words that says which split a row belongs to."""
NUMBERED = re.compile(r"[xX]_?\d+")
r"""What columns of a table are called that are the data, where not all of them are."""


def words(key: str) -> list[str]:
    r"""The words of ``train_x``, ``train-x``, ``trainX`` and ``XTrain``, in lower case."""
    found = re.split(r"[^A-Za-z]+|(?<=[a-z])(?=[A-Z])|(?<=^[A-Z])(?=[A-Z][a-z])", key)
    return [word.lower() for word in found if word]
