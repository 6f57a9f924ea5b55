"""crystalmesh: material properties from crystal structures as 3-D meshes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crystalmesh.inference.predictor import Predictor

__version__ = "0.1.0"


def load(target: str, model: str = "best") -> "Predictor":
    """A trained network that predicts pymatgen Structures and ASE Atoms.

    Args:
        target: `log_k`, `e_form`, ...: a target of config/ that a network serves.
        model: a run that is served; by default that of the least test error.

    Returns:
        What is called with a crystal, or with a list of them: see `inference.predictor.Predictor`.

    Raises:
        CrystalmeshError: no such target or model, or a damaged checkpoint.
    """
    from crystalmesh.config.project import locate
    from crystalmesh.inference import predictor

    return predictor.load(locate(), target, model)
