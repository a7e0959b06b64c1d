r"""Estimators: what a pair is worth, in nats per datum."""
