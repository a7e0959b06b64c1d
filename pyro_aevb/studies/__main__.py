import sys

from pyro_aevb.cli import run_command
from pyro_aevb.studies import study
from pyro_aevb.studies.study import GROUPS

outcome = run_command(study, positional="name", command="studies", groups=GROUPS)
sys.exit(1 if outcome.failed or outcome.missing else 0)
