"""Architectures, one family a file. They need PyTorch (`pip install 'restain[train]'`).

A network knows nothing of stains, losses or files. Import its module by its full name; nothing else imports torch.
"""
