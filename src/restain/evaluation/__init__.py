"""How well a normalizer does: metrics, registered pairs, datasets, reports."""
