"""Importers and exporters of topologies."""
