"""crystalmesh: material properties from crystal structures as 3-D meshes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crystalmesh.learn.predictors import Predictor

__version__ = "0.1.0"


def load(task: str, model: str = "best") -> "Predictor":
    """A trained network that predicts pymatgen Structures and ASE Atoms.

    Args:
        task: `log_k`, `log_g`, `e_form`, `gap` or `space_group`; see `crystalmesh predict --help`.
        model: an experiment of the group `predictors` in params.yaml; by default that of the least
            test error.

    Returns:
        What is called with a crystal, or with a list of them: see `learn.predictors.Predictor`.

    Raises:
        CrystalmeshError: no such task or model, or a damaged checkpoint.
    """
    from crystalmesh import config
    from crystalmesh.learn import predictors

    return predictors.load(config.locate(), task, model)
