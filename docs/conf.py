"""Sphinx settings. The build reads nothing from the network: no intersphinx."""

import pyro_aevb

project = "pyro_aevb"
author = "The pyro_aevb authors"
copyright = author
version = release = pyro_aevb.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "studies/*/findings.md"]  # the pages contain them
default_role = "code"
html_theme = "furo"
html_title = "pyro_aevb"

# A reference that leads nowhere fails the build, unless it leads to another package, is a shape
# such as (N, d), or a name that is written short in a signature.
nitpicky = True
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(torch|numpy|np|pyro|pathlib|collections|inspect|contextlib|pandas|matplotlib)\..*",
    ),
    (r"py:class", r"(pyro_aevb\..*\.)?[A-Zd]"),
    (
        r"py:class",
        r"Path|Module|Tensor|Prepared|Proven|DataFrame|Figure|(pyro_aevb\.keywords\.)?(Given|Returned)|(dict|tuple|list\[dict)\[.*",
    ),
]

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

# Notebooks are shown with the outputs that are stored in them.
nb_execution_mode = "off"

# Types live in the signature alone; docstrings have Arguments, Returns, Raises and References.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
