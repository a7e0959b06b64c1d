"""What every test starts from."""

import pyro
import pytest
import torch


@pytest.fixture(autouse=True)
def _fresh_process():
    torch.set_num_threads(1)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
