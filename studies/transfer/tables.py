"""Transfer learning beside training anew, and every model on the same repeated splits."""

from crystalmesh.report.tables import repeated

TABLES = [repeated.transfer, repeated.repeated]
