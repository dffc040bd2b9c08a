"""Ray Data in: a source of colour pictures becomes a Ray Dataset of lightness and chroma, for training and evaluation.

Knows nothing of networks. `dataset.load_dataset` is the way in; `sources` reads the specification, `cifar10`, `download` and `photos`
get the pictures, `lab` converts them. What happens at random (crops, flips, hints) belongs to training, not here.
"""
