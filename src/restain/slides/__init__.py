"""Whole slides: read, sample, normalize tile by tile, write. Memory does not grow with the slide."""
