"""Executable models of protocols, searched through."""
