"""Losses: pure functions on tensors, shared by systems. They know networks only as what made the tensors."""
