"""What the doors may ask about settings."""

from dataclasses import fields

from entrypoints.documents.limits import DocumentLimits
from infrastructure.settings import Settings
from infrastructure.settings_sources import catalog, reference, schema, shown

__all__ = ["catalog", "document_limits", "reference", "schema", "shown"]


def document_limits(settings: Settings) -> DocumentLimits:
    """How much a document may say."""
    return DocumentLimits(**{each.name: getattr(settings.limits, each.name) for each in fields(DocumentLimits)})
