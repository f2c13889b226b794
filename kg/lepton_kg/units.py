"""Units of measurement in UCUM notation: what they measure, and the exact straight line from one to another.

A subset of the Unified Code for Units of Measure (ucum.org, version 2.1), case sensitive, with the spellings that
hospital tables use instead (`mm²`, `°C`, `mmHg`, `cm^2`). Scales are exact fractions, so only the last step rounds.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType

from lepton_core.errors import UnitError

#: Exponents of metre, gram, second, kelvin, mole, coulomb, international unit. International units are of no other
#: kind (UCUM section 3.2, arbitrary units): what one counts depends on the substance.
Dimension = tuple[int, int, int, int, int, int, int]

_BASES = ("m", "g", "s", "K", "mol", "C", "[IU]")
_NONE: Dimension = (0, 0, 0, 0, 0, 0, 0)
_LENGTH: Dimension = (1, 0, 0, 0, 0, 0, 0)
_VOLUME: Dimension = (3, 0, 0, 0, 0, 0, 0)
_MASS: Dimension = (0, 1, 0, 0, 0, 0, 0)
_TIME: Dimension = (0, 0, 1, 0, 0, 0, 0)
_TEMPERATURE: Dimension = (0, 0, 0, 1, 0, 0, 0)
_AMOUNT: Dimension = (0, 0, 0, 0, 1, 0, 0)
_ENERGY: Dimension = (2, 1, -2, 0, 0, 0, 0)
_FREQUENCY: Dimension = (0, 0, -1, 0, 0, 0, 0)
_POTENTIAL: Dimension = (2, 1, -2, 0, 0, -1, 0)
_POWER: Dimension = (2, 1, -3, 0, 0, 0, 0)
_PRESSURE: Dimension = (-1, 1, -2, 0, 0, 0, 0)
_CATALYSIS: Dimension = (0, 0, -1, 0, 1, 0, 0)
_ARBITRARY: Dimension = (0, 0, 0, 0, 0, 0, 1)

_KINDS: Mapping[Dimension, str] = MappingProxyType(
    {
        _NONE: "dimensionless",
        _LENGTH: "length",
        (2, 0, 0, 0, 0, 0, 0): "area",
        _VOLUME: "volume",
        _MASS: "mass",
        _TIME: "time",
        _TEMPERATURE: "temperature",
        _AMOUNT: "amount of substance",
        _ENERGY: "energy",
        _POTENTIAL: "electric potential",
        _POWER: "power",
        _PRESSURE: "pressure",
        _CATALYSIS: "catalytic activity",
        _ARBITRARY: "international units",
        (-3, 1, 0, 0, 0, 0, 0): "mass concentration",
        (-3, 0, 0, 0, 1, 0, 0): "amount concentration",
        (-3, 0, -1, 0, 1, 0, 0): "catalytic concentration",
        (-3, 0, 0, 0, 0, 0, 0): "number concentration",
        (-3, 0, 0, 0, 0, 0, 1): "international units per volume",
        (-2, 1, 0, 0, 0, 0, 0): "mass per area",
        (0, -1, 0, 0, 1, 0, 0): "amount per mass",
        (0, 1, -1, 0, 0, 0, 0): "mass per time",
        _FREQUENCY: "frequency",
        (1, 0, -1, 0, 0, 0, 0): "speed",
        (3, 0, -1, 0, 0, 0, 0): "volume flow rate",
    }
)

_PREFIXES: Mapping[str, Fraction] = MappingProxyType(
    {
        "G": Fraction(10**9),
        "M": Fraction(10**6),
        "k": Fraction(10**3),
        "h": Fraction(10**2),
        "da": Fraction(10),
        "d": Fraction(1, 10),
        "c": Fraction(1, 10**2),
        "m": Fraction(1, 10**3),
        "u": Fraction(1, 10**6),
        "n": Fraction(1, 10**9),
        "p": Fraction(1, 10**12),
        "f": Fraction(1, 10**15),
    }
)

#: Units that take a prefix: scale to the base units.
_METRIC: Mapping[str, tuple[Fraction, Dimension]] = MappingProxyType(
    {
        "m": (Fraction(1), _LENGTH),
        "g": (Fraction(1), _MASS),
        "s": (Fraction(1), _TIME),
        "K": (Fraction(1), _TEMPERATURE),
        "mol": (Fraction(1), _AMOUNT),
        "eq": (Fraction(1), _AMOUNT),
        "osm": (Fraction(1), _AMOUNT),
        "L": (Fraction(1, 1000), _VOLUME),
        "l": (Fraction(1, 1000), _VOLUME),
        "Pa": (Fraction(1000), _PRESSURE),
        "m[Hg]": (Fraction("133322.387415") * 1000, _PRESSURE),
        "m[H2O]": (Fraction("9806650"), _PRESSURE),
        "U": (Fraction(1, 60 * 10**6), _CATALYSIS),
        "kat": (Fraction(1), _CATALYSIS),
        "bar": (Fraction(10**8), _PRESSURE),
        "J": (Fraction(1000), _ENERGY),
        "cal": (Fraction(4184), _ENERGY),
        "W": (Fraction(1000), _POWER),
        "V": (Fraction(1000), _POTENTIAL),
        "Hz": (Fraction(1), _FREQUENCY),
        "[IU]": (Fraction(1), _ARBITRARY),
    }
)

#: Units that take no prefix.
_PLAIN: Mapping[str, tuple[Fraction, Dimension]] = MappingProxyType(
    {
        "%": (Fraction(1, 100), _NONE),
        "[ppth]": (Fraction(1, 1000), _NONE),
        "[ppm]": (Fraction(1, 10**6), _NONE),
        "[Cal]": (Fraction(4_184_000), _ENERGY),
        "min": (Fraction(60), _TIME),
        "h": (Fraction(3600), _TIME),
        "d": (Fraction(86_400), _TIME),
        "wk": (Fraction(604_800), _TIME),
        "mo": (Fraction(2_629_800), _TIME),
        "a": (Fraction(31_557_600), _TIME),
        "[in_i]": (Fraction("0.0254"), _LENGTH),
        "[ft_i]": (Fraction("0.3048"), _LENGTH),
        "[lb_av]": (Fraction("453.59237"), _MASS),
        "[oz_av]": (Fraction("28.349523125"), _MASS),
    }
)

#: Units with their own zero: kelvin = value * scale + offset. They stand alone, never in a product.
_SHIFTED: Mapping[str, tuple[Fraction, Fraction]] = MappingProxyType(
    {
        "Cel": (Fraction(1), Fraction("273.15")),
        "[degF]": (Fraction(5, 9), Fraction("459.67") * Fraction(5, 9)),
    }
)

#: Whole units as people write them, after NFKC, which already turns ² into 2, ㎜ into mm and ℃ into °C.
_SPELLINGS: Mapping[str, str] = MappingProxyType(
    {
        "°C": "Cel",
        "degC": "Cel",
        "°F": "[degF]",
        "degF": "[degF]",
        "mmHg": "mm[Hg]",
        "mm Hg": "mm[Hg]",
        "cmH2O": "cm[H2O]",
        "bpm": "/min",
        "cc": "mL",
        "yr": "a",
        "year": "a",
        "years": "a",
        "day": "d",
        "days": "d",
        "hr": "h",
        "sec": "s",
        "in": "[in_i]",
        "ft": "[ft_i]",
        "lb": "[lb_av]",
        "lbs": "[lb_av]",
        "percent": "%",
        "mL/min/1.73m2": "mL/min/{1.73_m2}",
        "mL/min/1.73 m2": "mL/min/{1.73_m2}",
    }
)

#: What a division by the molar mass does to a dimension.
_AMOUNT_FOR_MASS: Dimension = (0, -1, 0, 0, 1, 0, 0)
_MAX_LENGTH = 100
_MAX_EXPONENT = 12
_TERM = re.compile(r"(?P<atom>10\*|(?:\[[A-Za-z_][A-Za-z0-9_]*\]|[A-Za-z%])+)?(?P<exponent>[+-]?[0-9]+)?")


@dataclass(frozen=True)
class Unit:
    """A parsed unit: base value = value * scale + offset, in the base units of `Dimension`."""

    #: The unit's text after normalising the spelling.
    code: str
    dimension: Dimension
    scale: Fraction
    offset: Fraction = Fraction(0)

    @property
    def kind(self) -> str:
        """Name of the kind of quantity it measures; the exponents where the kind has no name here."""
        return kind_of(self.dimension)


@dataclass(frozen=True)
class Conversion:
    """A straight line: value in the new unit = value * a + b."""

    a: float
    b: float

    def __call__(self, value: float) -> float:
        """The value in the new unit."""
        return value * self.a + self.b


def kind_of(dimension: Dimension) -> str:
    """The name of a kind of quantity, such as `length` or `mass concentration`."""
    known = _KINDS.get(dimension)
    if known is not None:
        return known
    return ".".join(f"{base}{power}" for base, power in zip(_BASES, dimension, strict=True) if power)


@lru_cache(maxsize=1024)
def parse_unit(text: str) -> Unit:
    """The unit that UCUM text, or a common spelling of it, stands for.

    Raises:
        UnitError: not a unit this subset knows.
    """
    if len(text) > _MAX_LENGTH:
        raise UnitError("a unit this long is refused", expected=f"at most {_MAX_LENGTH} characters", got=str(len(text)))
    if not text.strip():
        raise _unknown(text)
    code = _normalize(text)
    if code in _SHIFTED:
        scale, offset = _SHIFTED[code]
        return Unit(code, _TEMPERATURE, scale, offset)
    _require_no_decimal(code, text)
    scale, dimension = _parse_product(code, text)
    return Unit(code, dimension, scale)


def conversion(from_unit: str, to_unit: str, *, molar_mass_g_per_mol: float | None = None) -> Conversion:
    """The line that turns values of one unit into another.

    With the substance's molar mass, masses and amounts convert too (mg/dL of glucose to mmol/L).

    Raises:
        UnitError: a unit is unknown, or the two measure different kinds of quantity; names both kinds.
    """
    source, wanted = parse_unit(from_unit), parse_unit(to_unit)
    factor = Fraction(1)
    if source.dimension != wanted.dimension:
        factor = _molar_factor(source, wanted, molar_mass_g_per_mol)
    return Conversion(
        a=float(source.scale * factor / wanted.scale),
        b=float((source.offset - wanted.offset) / wanted.scale),
    )


def _molar_factor(source: Unit, wanted: Unit, molar_mass: float | None) -> Fraction:
    """What one base unit of `source` counts in base units of `wanted`, by the substance's molar mass."""
    change = tuple(b - a for a, b in zip(source.dimension, wanted.dimension, strict=True))
    to_amount = change == _AMOUNT_FOR_MASS
    to_mass = change == tuple(-power for power in _AMOUNT_FOR_MASS)
    if molar_mass is not None and molar_mass > 0 and (to_amount or to_mass):
        return 1 / Fraction(str(molar_mass)) if to_amount else Fraction(str(molar_mass))
    if to_amount or to_mass:
        hint = "the substance's molar mass makes it possible: give the concept lepton:molarMass, in g/mol"
    elif source.dimension[-1] != wanted.dimension[-1]:
        hint = "what an international unit counts depends on the substance: map the column to a concept in that unit"
    else:
        hint = "nothing turns one into the other: correct the unit, or map the column to another concept"
    raise UnitError(
        f"{source.code} cannot be turned into {wanted.code}",
        expected=f"a unit of {wanted.kind}",
        got=f"a unit of {source.kind}",
        hint=hint,
        reason="NEEDS_MOLAR_MASS" if to_amount or to_mass else "OTHER_KIND",
    )


def _normalize(text: str) -> str:
    # NFKC makes 10⁹ a hundred and nine.
    raised = re.sub(r"10(?=[⁺⁻]?[⁰¹²³⁴-⁹])", "10^", text)
    code = unicodedata.normalize("NFKC", raised).replace("−", "-").strip()
    code = code.replace("μ", "u").replace("µ", "u").replace("mcg", "ug")
    code = _SPELLINGS.get(code, code)
    # 10*9 is UCUM's power of ten; every other star, dot or cross is a product.
    code = re.sub(r"^[x×](?=10[*^])", "", code)
    code = re.sub(r"\b10[*^](?=[+-]?\d)", "10#", code)
    code = re.sub(r"(?<![A-Za-z\[])([munpkM]?)I[Uu](?![A-Za-z\]])", r"\1[IU]", code).replace("[iU]", "[IU]")
    code = re.sub(r"(?<![A-Za-z])([mu]?)Eq(?![A-Za-z])", r"\1eq", code)
    code = code.replace("^", "").replace("*", ".").replace("·", ".").replace("⋅", ".").replace("×", ".")
    code = code.replace("10#", "10*")
    # An annotation such as {cells} has no bearing on the quantity; alone between slashes or dots it stands for 1.
    code = re.sub(r"(?<=[./(])\{[^{}]*\}(?=[./)]|$)", "1", code)
    code = re.sub(r"\{[^{}]*\}", "", code)
    code = re.sub(r"\s+", "", code)
    return code or "1"


def _require_no_decimal(code: str, text: str) -> None:
    """UCUM has whole numbers only, and 1.73 would be one times seventy-three."""
    if re.search(r"(?<![A-Za-z\])}\d*+-])\d+\.\d", code):
        raise _unknown(text)


def _parse_product(code: str, text: str) -> tuple[Fraction, Dimension]:
    """UCUM section 2.3.2: products and quotients from left to right; a leading slash inverts, parentheses group."""
    scale, dimension = Fraction(1), _NONE
    for index, token in enumerate(_terms(code, text)):
        if index == 0 and not token and code.startswith("/"):
            continue
        sign = -1 if token.startswith("/") else 1
        factor, powers = _parse_term(token[1:] if index else token, text)
        scale *= factor**sign
        dimension = _times(dimension, powers, sign)
    return scale, dimension


def _times(dimension: Dimension, other: Dimension, exponent: int) -> Dimension:
    """The dimension of a product with a power of another."""
    m, g, s, k, mol, c, iu = (a + exponent * b for a, b in zip(dimension, other, strict=True))
    return m, g, s, k, mol, c, iu


def _terms(code: str, text: str) -> list[str]:
    """The factors with the sign before each, split where no parenthesis is open."""
    terms, depth = [""], 0
    for sign in code:
        depth += (sign == "(") - (sign == ")")
        if depth < 0:
            raise _unknown(text)
        if sign in "./" and depth == 0:
            terms.append("")
        terms[-1] += sign
    if depth:
        raise _unknown(text)
    return terms


def _parse_term(term: str, text: str) -> tuple[Fraction, Dimension]:
    if term.startswith("(") and term.endswith(")"):
        return _parse_product(term[1:-1], text)
    found = _TERM.fullmatch(term)
    if found is None or not term:
        raise _unknown(text)
    atom, digits = found["atom"], found["exponent"]
    if atom is None:
        if not digits.isdigit() or int(digits) == 0 or len(digits) > _MAX_EXPONENT:
            raise _unknown(text)
        return Fraction(int(digits)), _NONE
    exponent = int(digits) if digits else 1
    if abs(exponent) > _MAX_EXPONENT or exponent == 0:
        raise _unknown(text)
    if atom == "10*":
        return Fraction(10) ** exponent, _NONE
    scale, dimension = _find_atom(atom, text)
    return scale**exponent, _times(_NONE, dimension, exponent)


def _find_atom(atom: str, text: str) -> tuple[Fraction, Dimension]:
    if atom in _PLAIN:
        return _PLAIN[atom]
    if atom in _METRIC:
        return _METRIC[atom]
    for prefix, factor in _PREFIXES.items():
        rest = atom.removeprefix(prefix)
        if rest != atom and rest in _METRIC:
            scale, dimension = _METRIC[rest]
            return factor * scale, dimension
    raise _unknown(text)


def _unknown(text: str) -> UnitError:
    return UnitError(
        "a unit that is not known",
        expected="UCUM, such as mm, um2, mg/dL, mmol/L, 10*9/L, Cel, %, 1",
        got=repr(text[:_MAX_LENGTH]),
    )
