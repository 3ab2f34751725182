"""Formats as tables of bits. No control flow in this file."""
