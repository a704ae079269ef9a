"""From microscopy images and a table of cells to a publishable single-cell dataset."""

__version__ = "0.1.0"
