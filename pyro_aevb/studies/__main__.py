import sys

from pyro_aevb.cli import run_command
from pyro_aevb.studies import study

outcome = run_command(study, positional="name", command="studies")
sys.exit(1 if outcome.failed or outcome.missing else 0)
