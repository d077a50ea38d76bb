"""Primitives for what is scarce and what fails: fair lines, retries."""
