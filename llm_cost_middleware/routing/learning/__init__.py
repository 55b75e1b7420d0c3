"""Offline learning of a routing policy from outcomes: labels, fit, calibration, tuning, and replay of the log.

Nothing that routes a call imports it: a learned policy is a file that ``routing.learned`` reads in plain Python.
"""
