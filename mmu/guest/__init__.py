"""Runs guest instructions. The only room that imports unicorn."""
