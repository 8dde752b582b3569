"""Training: data, the loop, checkpoints, runs. Needs PyTorch (`pip install 'restain[train]'`).

The way of the data: files → `tiles` (pictures: whole images, or tiles sampled from slides) → `sampling` (split, and the
order of an epoch) → `augment` (crop, flips, quarter turns) → `data` (batches).
"""
