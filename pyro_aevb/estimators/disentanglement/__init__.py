r"""Disentanglement: whether each factor that data were made of has a dimension of the code.

Functions of codes ``(N, d)`` and factors ``(N, K)``, each in a file of its own, and the record of
the estimator (:mod:`.record`). They measure different things, and order codes differently: read
several, each beside its chance level.

===================================  ============================================================
:func:`~.higgins.higgins`            a linear classifier tells which factor pairs of data share
:func:`~.factorvae.factorvae`        the dimension that varies least tells which factor is fixed
:func:`~.mig.mig`                    information of the best dimension less that of the second
:func:`~.dci.dci`                    whether the importances of a predictor have one place each
:func:`~.sap.sap`                    accuracy of the best dimension less that of the second
:func:`~.modularity.modularity`      whether each dimension speaks of one factor alone
:func:`~.explicitness.explicitness`  whether a linear classifier finds the factors in the code
===================================  ============================================================

References:
    | Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations
      (Locatello et al., 2019)
    | https://arxiv.org/abs/1811.12359
"""

from pyro_aevb.estimators.disentanglement.record import DISENTANGLEMENT as DISENTANGLEMENT
