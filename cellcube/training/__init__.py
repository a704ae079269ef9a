"""Batches of cells for training: shuffled, split between ranks and workers, resumable, read straight from shards."""

from cellcube.training.loader import Batch, Batches, batches

__all__ = ["Batch", "Batches", "batches"]
