"""Patches that each take one guard out, and the proof that a test notices."""
