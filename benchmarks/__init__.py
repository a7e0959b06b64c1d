r"""Speed against peers and against the limit of the hardware.

    python -m benchmarks.training      an epoch, against other libraries and the bare products
    python -m benchmarks.scoring       the importance-weighted log-likelihood
    python -m benchmarks.endurance     many steps: no recompilation, no growth of memory

Every contender is a :class:`~benchmarks.peers.Peer` in a process of its own; the processes take
turns (:mod:`benchmarks.measure`), and a contender is timed only after it was found to compute the
same objective as the others.
"""
