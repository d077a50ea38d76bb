"""The demonstration: every flight that left New York in 2013, each airline a tenant of its own.

Run it with ``python -m examples.flights``.
"""
