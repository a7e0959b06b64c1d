import sys

from pyro_aevb.cli import run_command
from pyro_aevb.studies import study

sys.exit(1 if run_command(study, positional="name", command="studies").failed else 0)
