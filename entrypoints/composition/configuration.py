"""What the doors may ask about settings."""

from infrastructure.settings_sources import catalog, reference, schema, shown

__all__ = ["catalog", "reference", "schema", "shown"]
