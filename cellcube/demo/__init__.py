"""Synthetic microscopy to try cellcube on."""
