"""From the results on disk to tables, figures, the document and the ledger; nothing is trained."""
