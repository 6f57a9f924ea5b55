"""Predictions for anybody's systems: values with intervals, and a word where trust ends.

predictor.py   a network that is called with structures; which one is the best of a target
calibrate.py   the stage that gathers what a prediction needs beside the weights
table.py       files of one's own -> a table
"""
