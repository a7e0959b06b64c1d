r"""Training: one loop, its optimizers and schedules, its checkpoints."""
