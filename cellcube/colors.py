"""The colour a channel is shown in, from its name."""

from __future__ import annotations

import re

GREY = "FFFFFF"

# Words as they stand in channel names, most telling first: what is stained comes before the dye, because "Mito 647"
# is mitochondria to whoever named it. A word that ends in * is the beginning of a word.
_WORDS: tuple[tuple[str, str], ...] = (
    (GREY, "brightfield bright bf dic phase phasecontrast transmitted trans tl brightfield* transmit*"),
    ("3D7BFF", "dna dapi hoechst* nucleus nuclei nuclear h2b histone* draq5 405 bfp"),
    ("FF4FD8", "mito mitochondri* mitotracker* tomm20 tom20 647 640 cy5 af647 farred"),
    ("FF7F2A", "agp actin* phalloidin golgi* membrane* wga cellmask* rfp mcherry cherry tdtomato mkate2 mscarlet*"),
    ("FFE119", "rna syto* nucleol* yfp venus 532"),
    ("2BD96B", "er endoplasmic* concanavalin* cona tubulin* gfp egfp mgfp fitc mneongreen neongreen mng 488 af488"),
    ("FF7F2A", "tritc cy3 texas txred 555 561 568 594 af568 af594 red"),
    ("2BD96B", "green"),
    ("3D7BFF", "blue"),
)
# After Okabe and Ito (2008), without black and with the dark ones raised to be seen on black.
_CYCLE = ("56B4E9", "E69F00", "00C08B", "CC79A7", "F0E442", "F0703C", "4F8FE6")


def channel_color(name: str, index: int) -> str:
    """Colour of a channel.

    Parameters
    ----------
    name : str
        Channel name, such as ``"DNA"``, ``"OrigER"`` or ``"Hoechst33342"``. Upper and lower case do not matter,
        except that a capital begins a word.
    index : int
        Position among the channels; chooses from a cycle that the colour-blind can tell apart where the name tells
        nothing.

    Returns
    -------
    str
        ``"RRGGBB"``, six upper-case hexadecimal digits. Blue for DNA, green for ER and GFP, yellow for RNA, orange for
        AGP, actin, membrane and RFP, magenta for mitochondria and far red, white (a grey ramp) for transmitted light.

    Examples
    --------
    >>> channel_color("DAPI", 0), channel_color("structure", 2)
    ('3D7BFF', '00C08B')
    """
    words = _words_of(name)
    for color, known in _WORDS:
        for word in known.split():
            if word in words or (word[-1] == "*" and any(w.startswith(word[:-1]) for w in words)):
                return color
    return _CYCLE[index % len(_CYCLE)]


def is_transmitted(name: str) -> bool:
    """Whether a channel is of transmitted light, which is bright where there is nothing.

    Examples
    --------
    >>> is_transmitted("Bright Field"), is_transmitted("ER")
    (True, False)
    """
    return channel_color(name, 0) == GREY


def _words_of(name: str) -> set[str]:
    """Words of `name` in lower case: whole ones, and those that capitals and digits divide them into."""
    words: set[str] = set()
    for whole in re.findall(r"[^\W_]+", name):
        words.add(whole.lower())
        words.update(part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", whole))
    return words
