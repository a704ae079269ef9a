"""Static pages for people who would rather look."""
