"""Metadata that repositories and search engines read: RO-Crate, Croissant, licences."""
