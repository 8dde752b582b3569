"""Networks trained by others on photographs, for their features: AlexNet, VGG, SqueezeNet, Inception v3.

Written here in plain PyTorch with the names that torchvision gives its parameters, so that weights published for it
load from a file, and torchvision itself is not needed. They are built without weights; see `weights`.
"""
