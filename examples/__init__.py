"""Programs that show tenantry at work."""
