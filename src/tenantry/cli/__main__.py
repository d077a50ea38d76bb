"""``python -m tenantry.cli``."""

from tenantry.cli.main import app

if __name__ == "__main__":
    app()
