"""Signs that say something in a table, and their stand-ins on terminals without Unicode."""

from __future__ import annotations

PICK = "★"
KNEE = "◆"
NEAREST = "▸"
EXTRAPOLATED = "†"
BROKEN = "✗"

LEGEND = {
    PICK: "pick for the target",
    KNEE: "knee: best trade-off",
    NEAREST: "nearest to the target",
    EXTRAPOLATED: "accuracy extrapolated",
    BROKEN: "promise broken when measured on the device",
}

_PLAIN = {
    PICK: "*", KNEE: "o", NEAREST: ">", EXTRAPOLATED: "!", BROKEN: "x", "±": "+-", "×": "x", "·": "-", "–": "-",
    "—": "-", "…": "...", "Δ": "d", "→": "->", "≥": ">=", "≤": "<=", "⋮": ":", "µ": "u",
}  # fmt: skip


def for_encoding(text: str, encoding: str) -> str:
    """The text with every sign that the encoding lacks replaced by plain letters."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plain = "".join(_PLAIN.get(sign, sign) for sign in text)
        return plain.encode(encoding, "replace").decode(encoding)
    except LookupError:
        return text
    return text
