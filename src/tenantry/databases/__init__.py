"""The databases. Each module is imported by :mod:`tenantry.registry` when its URL scheme is used."""
