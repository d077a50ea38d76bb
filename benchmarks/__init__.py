"""Measures tenantry against what people would otherwise use, on one machine and in one run.

Absolute numbers of a shared machine mean little, so contenders take turns and what counts is their ratio in the
same round.
"""
