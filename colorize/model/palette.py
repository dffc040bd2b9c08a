"""The palette: quantised ab colours (bins), their prior, and the decoding of a distribution over them into colours.

Colour is ambiguous: a shirt is red or green, and a regression answers with the dull average of both. So the network predicts, per pixel, a
distribution over K bins (Zhang, Isola, Efros 2016, "Colorful Image Colorization"), and this module turns ab into targets and
distributions back into ab. It knows nothing of networks, pictures or files.

The bins are the nodes of a square grid over the ab plane, kept where the training data has colour. A target is spread over the
four nodes around it with bilinear weights, so that the expectation of a target is the very colour it encodes (quantisation
costs nothing, whatever the step); the loss gathers four logits per pixel and never builds a (b, K, h, w) target.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

AB_LIMIT = 128
"""The grid spans −128…128 in a and in b: every sRGB colour lies within −108…99."""

TILT_NATS = 1.0
"""How strongly a candidate leans to its hue, at most, in nats: a factor of e before the temperature."""

TILT_SCALE_AB = 20.0
"""From this many ab units along the hue the lean levels off. Without that, the gaudiest bin won wherever the network was unsure."""

CONFIDENCE_SCALE_AB = 20.0
"""The spread, in ab units, at which the confidence has fallen to 1/e."""

MOST_LOST = 3.0
"""A picture counts as having lost at most so many times the chroma that it has, so that a print without one sure colour stays quiet."""

LEAST_ERROR_AB = 3.0
"""In ab units: see `Palette.losses`."""


class Palette:
    """K bins in the ab plane with their prior.

    bins_k2: (K, 2) float32, ab units, nodes of a grid of `step`. prior_k: (K,) float32, sums to 1, every entry positive.
    """

    def __init__(self, bins_k2: Tensor, prior_k: Tensor, step: float) -> None:
        assert bins_k2.ndim == 2
        assert bins_k2.shape[1] == 2
        assert prior_k.shape == (len(bins_k2),)
        self.bins_k2 = bins_k2.float()
        self.prior_k = prior_k.float()
        self.step = float(step)
        self._nodes_per_side = 2 * math.ceil(AB_LIMIT / self.step) + 1
        self._bin_of_node = self._nearest_bin_of_every_node()

    def __len__(self) -> int:
        return len(self.bins_k2)

    @property
    def mean_ab_2(self) -> Tensor:
        """The training data's mean colour, in ab units: (2,). Everything painted in it is the mean-colour baseline."""
        return self.prior_k @ self.bins_k2

    def to(self, device: torch.device | str) -> Palette:
        """The same palette with its tensors on `device`."""
        moved = Palette.__new__(Palette)
        moved.step, moved._nodes_per_side = self.step, self._nodes_per_side
        moved.bins_k2, moved.prior_k = self.bins_k2.to(device), self.prior_k.to(device)
        moved._bin_of_node = self._bin_of_node.to(device)
        return moved

    @staticmethod
    def count(ab_n2: Tensor, step: float) -> Tensor:
        """The bilinear histogram of colours over the grid's nodes: (side, side) float64, indexed [a, b].

        ab_n2: (n, 2) ab units. Histograms of parts of a data set add up to the histogram of the whole.
        """
        side = 2 * math.ceil(AB_LIMIT / step) + 1
        index_n4, weight_n4 = _corners(ab_n2.float(), step, side)
        histogram = torch.zeros(side * side, dtype=torch.float64)
        histogram.index_add_(0, index_n4.reshape(-1), weight_n4.reshape(-1).double())
        return histogram.reshape(side, side)

    @classmethod
    def from_histogram(cls, histogram: Tensor, step: float, smallest_share: float = 1e-5) -> Palette:
        """The palette of a data set from its `count`: the nodes that hold at least `smallest_share` of all colours.

        The colours of the dropped nodes (0.3 % of CIFAR-10's at step 10) go to the nearest kept one.
        """
        share = histogram / histogram.sum()
        kept_k2 = (share >= smallest_share).nonzero()
        half = histogram.shape[0] // 2
        bins_k2 = (kept_k2 - half).float() * step
        palette = cls(bins_k2, torch.full((len(bins_k2),), 1 / len(bins_k2)), step)
        prior_k = torch.zeros(len(bins_k2), dtype=torch.float64)
        prior_k.index_add_(0, palette._bin_of_node, share.reshape(-1))
        palette.prior_k = prior_k.float()
        return palette

    def extended(self, histogram: Tensor, smallest_share: float = 1e-4, weight: float = 0.5) -> Palette:
        """The palette with the colours of a further data set, from its `count` at this palette's step.

        The bins stay where they are in the order, so that a network's logits keep their meaning; the nodes that are no bins yet and hold
        at least `smallest_share` of the further colours follow. The prior is a mixture: `weight` of the further colours' and the rest of
        this palette's, each colour at its nearest bin. A prior of the further colours alone would divide the bins that they lack by almost
        nothing, and the vivid end of the dial would paint with those.
        """
        share = (histogram / histogram.sum()).reshape(-1)
        half = self._nodes_per_side // 2
        nodes_n2 = (torch.cartesian_prod(*[torch.arange(self._nodes_per_side)] * 2) - half).float() * self.step
        is_bin_n = (nodes_n2[:, None] == self.bins_k2[None]).all(2).any(1)
        bins_k2 = torch.cat([self.bins_k2, nodes_n2[(share >= smallest_share) & ~is_bin_n]])
        palette = Palette(bins_k2, torch.full((len(bins_k2),), 1 / len(bins_k2)), self.step)
        prior_k = torch.zeros(len(bins_k2), dtype=torch.float64).index_add_(0, palette._bin_of_node, weight * share.double())
        prior_k[: len(self)] += (1 - weight) * self.prior_k.double()
        palette.prior_k = (prior_k / prior_k.sum()).float()
        return palette

    def encode(self, ab_b2hw: Tensor) -> tuple[Tensor, Tensor]:
        """Targets: the four bins around each colour and their weights.

        ab_b2hw: (b, 2, h, w) ab units. Returns index_b4hw int64 in 0…K−1 and weight_b4hw float32 that sums to 1 over the four.
        """
        b, _, h, w = ab_b2hw.shape
        ab_n2 = ab_b2hw.permute(0, 2, 3, 1).reshape(-1, 2).float()
        node_n4, weight_n4 = _corners(ab_n2, self.step, self._nodes_per_side)
        index_n4 = self._bin_of_node[node_n4]
        return (
            index_n4.reshape(b, h, w, 4).permute(0, 3, 1, 2),
            weight_n4.reshape(b, h, w, 4).permute(0, 3, 1, 2),
        )

    def losses(self, logits_bkhw: Tensor, ab_b2hw: Tensor) -> tuple[Tensor, Tensor]:
        """What softmax(logits_bkhw) over the bins loses against the true ab_b2hw: two scalars, in nats.

        The first is the mean cross-entropy with the soft targets. The second is the mean over the pictures of the logarithm of the expected
        colour's squared error: what the mean PSNR measures, in ab instead of RGB; 1 nat is 4.34 dB. A picture's error counts
        LEAST_ERROR_AB squared more than it is, so that nothing is to be gained from pictures that are right already.
        """
        index_b4hw, weight_b4hw = self.encode(ab_b2hw)
        index_n4, weight_n4 = (planes.movedim(1, -1).reshape(-1, 4) for planes in (index_b4hw, weight_b4hw))
        # Bins last, as channels-last logits lie in memory, and one softmax for both: 10 ms for 32 pictures of 32×32 and back, against 29.
        log_share_nk = logits_bkhw.movedim(1, -1).flatten(0, 2).log_softmax(1, dtype=torch.float32)
        entropy = -(log_share_nk.gather(1, index_n4) * weight_n4).sum(1).mean()
        expected_bn2 = (log_share_nk.exp() @ self.bins_k2).view(len(ab_b2hw), -1, 2)
        error_bn2 = expected_bn2 - ab_b2hw.flatten(2).mT
        log_error = (error_bn2.square().mean((1, 2)) + LEAST_ERROR_AB**2).log().mean()
        return entropy, log_error

    def decode(self, logits_bkhw: Tensor, temperature: float = 1.0, rebalance: float = 0.0, hue: float | None = None) -> Tensor:
        """The annealed mean (Zhang et al. 2016, eq. 5) of the rebalanced distribution, in ab units: (b, 2, h, w) float32.

        p_k ∝ (softmax(logits)_k / prior_k^rebalance)^(1/temperature); temperature 1 and rebalance 0 give the plain expectation, which
        minimises the squared error; a temperature towards 0 gives the mode. `hue` (radians) tilts the distribution towards one
        direction u of the ab plane, p_k·exp(TILT_NATS·tanh(⟨u, bin_k⟩ / TILT_SCALE_AB)): pixels that are sure keep their colour,
        ambiguous ones lean together, so a candidate stays coherent.
        """
        scores_bkhw = logits_bkhw.float()
        if rebalance:
            scores_bkhw = scores_bkhw - rebalance * self.prior_k.log().view(1, -1, 1, 1)
        if hue is not None:
            direction_2 = torch.tensor([math.cos(hue), math.sin(hue)], device=scores_bkhw.device)
            along_k = self.bins_k2 @ direction_2 / TILT_SCALE_AB
            scores_bkhw = scores_bkhw + TILT_NATS * along_k.tanh().view(1, -1, 1, 1)
        share_bkhw = (scores_bkhw / temperature).softmax(1)
        return torch.einsum("bkhw,kc->bchw", share_bkhw, self.bins_k2)

    def candidates(self, logits_bkhw: Tensor, count: int, temperature: float, rebalance: float) -> Tensor:
        """`count` colourings: (b, count, 2, h, w) float32, ab units; the first is `decode`'s, the others lean to hues around the circle."""
        hues = [None] + [2 * math.pi * n / max(count - 1, 1) for n in range(count - 1)]
        return torch.stack([self.decode(logits_bkhw, temperature, rebalance, hue) for hue in hues], dim=1)

    def spread(self, logits_bkhw: Tensor) -> Tensor:
        """The error that the network expects of itself: (b, h, w) float32, ab units.

        The root-mean-square distance of the predicted distribution from its own mean.
        """
        share_bkhw = logits_bkhw.float().softmax(1)
        mean_b2hw = torch.einsum("bkhw,kc->bchw", share_bkhw, self.bins_k2)
        square_bhw = torch.einsum("bkhw,k->bhw", share_bkhw, self.bins_k2.square().sum(1))
        return (square_bhw - mean_b2hw.square().sum(1)).clamp_min(0).sqrt()

    def _nearest_bin_of_every_node(self) -> Tensor:
        axis = (torch.arange(self._nodes_per_side) - self._nodes_per_side // 2).float() * self.step
        nodes_n2 = torch.cartesian_prod(axis, axis)
        return torch.cdist(nodes_n2, self.bins_k2).argmin(1)


def confidence(spread_bhw: Tensor) -> Tensor:
    """How sure the network is of its colour, 0…1: exp(−`Palette.spread` / 20)."""
    return (-spread_bhw / CONFIDENCE_SCALE_AB).exp()


def lifted(ab_bn2hw: Tensor, spread_bhw: Tensor, lift: float) -> Tensor:
    """Colourings (b, n, 2, h, w) whose chroma is raised by the share `lift` of their picture's `Palette.spread` (b, h, w); ab units.

    A mean of several colours is duller than each of them: a picture's mean square chroma falls by its mean square spread. What is added
    in the colours' own direction adds its square to the error, whatever that is already, so it costs the fewest dB where the network is
    unsure anyway. One factor a picture: within one, the cheapest way to more colour is the same factor for all.
    """
    chroma_bn = ab_bn2hw.square().sum(2).mean((-2, -1)).sqrt()
    lost_b1 = spread_bhw.square().mean((-2, -1)).sqrt()[:, None]
    factor_bn = 1 + lift * (lost_b1 / chroma_bn.clamp_min(1e-6)).clamp_max(MOST_LOST)
    return ab_bn2hw * factor_bn[:, :, None, None, None]


def _corners(ab_n2: Tensor, step: float, side: int) -> tuple[Tensor, Tensor]:
    """The flat grid indices (n, 4) of the nodes around each colour and their bilinear weights (n, 4)."""
    position_n2 = (ab_n2 / step + side // 2).clamp(0, side - 1.001)
    low_n2 = position_n2.floor()
    part_n2 = position_n2 - low_n2
    low_n2 = low_n2.long()
    part_a, part_b = part_n2[:, 0], part_n2[:, 1]
    first_n = low_n2[:, 0] * side + low_n2[:, 1]
    index_n4 = torch.stack([first_n, first_n + 1, first_n + side, first_n + side + 1], 1)
    weight_n4 = torch.stack([(1 - part_a) * (1 - part_b), (1 - part_a) * part_b, part_a * (1 - part_b), part_a * part_b], 1)
    return index_n4, weight_n4
