r"""What is said and drawn of a run."""
