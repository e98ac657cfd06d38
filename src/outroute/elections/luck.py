"""How much luck there is among N nodes: what each score must exceed, and how many nodes are honest at all.

Who judges hundreds of nodes finds some that look useful by luck. The level of the test is therefore shared out among
them: not evenly, but so that as many honest nodes as possible can pass. Most of it goes to nodes that would show
something if they were honest; a Sybil with eight packets, of which nobody could tell anything either way, gets next to
nothing and takes next to nothing from the others.

How many nodes are random at all is seen from scores a little below zero, where honest ones are rare: a random node
lands there as often as a little above. Who is clearly below zero lies. Where nobody is below zero there is little luck
to be afraid of.

Sources: Genovese, Roeder and Wasserman (2006), "False discovery control with p-value weighting" (the level shared out
by weights); Roeder and Wasserman (2009), "Genome-wide significance levels and weighted hypothesis testing", section 3
(the weights with the most power); Storey (2002), "A direct approach to false discovery rates" (how many are null);
Efron (2008), "Simultaneous inference: when should hypothesis testing problems be combined?" (nodes of like power only).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["LEVEL", "honest_share", "needed"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LEVEL = 0.05
"""One-sided level for one node, and for all random nodes together."""
PER_SEEN = 2.0 / (1.0 - 2.0 * LEVEL)
"""Random nodes for each that is seen below zero, but not below the same level on that side."""
SHOWN = 0.5
"""Part of what is expected of an honest node that one shows at least, as a rule: sites differ."""
SHOWN_LEAST, SHOWN_MOST = 0.25, 3.0
"""Bounds of the score that the level is shared out by, standard errors. Beyond three everybody honest passes."""
BISECTIONS = 40
"""Halvings of an interval of width `WIDEST`: exact to 1e-10."""
WIDEST = 60.0
LEANS = 4.0
"""Nodes that the share among all counts as in each group."""
HONEST_LEAST, HONEST_MOST = 0.02, 0.9
"""Bounds of the share of honest nodes: nobody is judged by what others are alone."""


def needed(reverse: Floats, expected: Floats, judged: Bools) -> Floats:
    """What the score of each node must exceed, float64[N].

    The level t_i = P(Z > s_i / 2 + c / s_i) of a node that would show s_i is the one with the most power. The constant
    c follows from the bound on random nodes that pass: `PER_SEEN` for each that is seen below zero, and one more, who
    might be any. At least what one node by itself must exceed.

    Args:
        reverse: float64[N], scores; exactly zero where nothing could be compared.
        expected: float64[N], what an honest node would show.
        judged: bool[N], nodes with packets enough.
    """
    from scipy.special import ndtr, ndtri

    one = float(-ndtri(LEVEL))
    shown = np.clip(SHOWN * expected, SHOWN_LEAST, SHOWN_MOST)
    mine = shown[judged]
    if not len(mine):
        return np.full(len(reverse), one)
    below = _random(reverse)[judged]
    low, high = -WIDEST, WIDEST
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        level = ndtr(-(0.5 * mine + middle / mine))
        if PER_SEEN * float(level[below].sum()) + float(level.max()) > LEVEL:
            low = middle
        else:
            high = middle
    return np.maximum(0.5 * shown + high / shown, one)


def _random(reverse: Floats) -> Bools:
    """Who is below zero, but not clearly, bool[N]."""
    from scipy.special import ndtri

    return np.asarray((reverse < 0) & (reverse > ndtri(LEVEL)))


def honest_share(reverse: Floats, expected: Floats, judged: Bools) -> Floats:
    """Share of honest nodes among those that each is one of, float64[N].

    Who is a little below zero stands for two random ones, who is clearly below for one liar. Nodes are compared with
    those that would show about as much (within a factor of two): what 300 small nodes are says little about twenty
    large ones. A group of few leans on what is seen of all. Of whom nothing can be compared as many are taken to be
    honest as are known to be among all: so hundreds that keep below what can be judged are believed no more than
    hundreds that are random.

    Args:
        reverse, expected, judged: as for `needed`.
    """
    group = np.round(np.log2(np.clip(SHOWN * expected, SHOWN_LEAST, SHOWN_MOST) / SHOWN_LEAST)).astype(np.int64)
    told = judged & (reverse != 0.0)
    count = np.bincount(group[told], minlength=int(group.max(initial=0)) + 1)
    dishonest = np.where(_random(reverse), 2.0, (reverse < 0).astype(np.float64)) * told
    honest = count - np.bincount(group, dishonest, len(count))
    of_all = (honest.sum() + 1.0) / (len(reverse) + 2.0)
    overall = (honest.sum() + 1.0) / (count.sum() + 2.0)
    share = (honest + LEANS * max(overall, 0.0)) / (count + LEANS)
    out: Floats = np.clip(np.where(told, share[group], of_all), HONEST_LEAST, HONEST_MOST)
    return out
