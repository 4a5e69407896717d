"""Adapters of IMessageQueue."""
