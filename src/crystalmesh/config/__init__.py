"""What is to be done: config/, studies/ and their plans as typed, checked objects.

schema.py    the blocks of the settings files
read.py      YAML with one line for each mistake
study.py     study.yaml -> runs
project.py   the folder, its settings, where each stage reads and writes
check.py     every name that a block refers to must exist
plan.py      plan.json: what both workflow engines read
"""
