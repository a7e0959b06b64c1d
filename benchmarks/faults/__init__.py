r"""What goes wrong, done on purpose: signals, failing system calls, damage, forgery, fuzz."""
