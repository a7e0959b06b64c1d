r"""A run's directory: its settings, its checkpoint, its results."""
