r"""A model and its guide: what they are, the contract they keep, and how they are used."""
