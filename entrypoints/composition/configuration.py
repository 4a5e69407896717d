"""What the doors may ask about settings."""

from dataclasses import fields

from entrypoints.documents.limits import DocumentLimits
from infrastructure.settings.reference import catalog, reference, schema
from infrastructure.settings.sources import shown
from infrastructure.settings.tree import Settings

__all__ = ["catalog", "document_limits", "reference", "schema", "shown"]


def document_limits(settings: Settings) -> DocumentLimits:
    """How much a document may say."""
    return DocumentLimits(**{each.name: getattr(settings.limits, each.name) for each in fields(DocumentLimits)})
