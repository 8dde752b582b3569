"""What `peers.py` is made of: the other packages' environments and workers, and one file a question."""
