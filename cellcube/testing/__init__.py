"""Helpers for the tests of cellcube and of whatever extends it; nothing in cellcube imports them."""
