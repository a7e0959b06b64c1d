r"""What a pair's code keeps in Python, beside its parameters."""
