"""What results were made with, and whether they are what the code gives.

software.py   the code that ran and the packages it ran on
ledger.py     the checksum of every output of a study
verify.py     a study made again and held to its ledger
crate.py      the same for machines (RO-Crate) and people (README.md)
"""
