"""The tests compute as every stage does: the environment comes before NumPy and numba read it."""

from crystalmesh import numerics

numerics.prepare("native")
