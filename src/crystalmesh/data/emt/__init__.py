"""The embedded dataset `emt`: relaxed alloys of seven metals from nothing but ASE's EMT potential.

Prototype structures are decorated with Al, Cu, Ag, Au, Ni, Pd and Pt (`prototypes`), relaxed within
the symmetry of the prototype (`relaxation`, with the potential in `potential`), and labelled with a
formation energy and the Voigt-Reuss-Hill moduli (`elasticity`). The result (`generation`) has the
shape of matminer's raw Materials Project JSON, so it enters the pipeline by the same door.
"""

from crystalmesh.data.emt.generation import EmtSettings, generate

__all__ = ["EmtSettings", "generate"]
