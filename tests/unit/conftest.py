"""One thread for torch: on cores that other work uses too, its threads wait for one another at every layer, up to 25 times as long."""

import torch

torch.set_num_threads(1)
