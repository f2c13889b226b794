import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_core.errors import UnitError
from lepton_kg.units import conversion, kind_of, parse_unit

LENGTHS = ("m", "km", "hm", "dam", "dm", "cm", "mm", "um", "nm", "pm", "[in_i]")
GROUPS = (
    LENGTHS,
    tuple(f"{unit}2" for unit in ("m", "cm", "mm", "um", "nm")),
    ("K", "Cel", "[degF]"),
    ("s", "min", "h", "d", "wk", "a", "ms"),
    ("mg/dL", "g/L", "ug/mL", "kg/m3", "ng.mL-1"),
    ("mmol/L", "umol/L", "mol/m3", "mmol.L-1"),
    ("1", "%", "[ppm]", "10*-3"),
    ("mm[Hg]", "Pa", "kPa", "mbar", "cm[H2O]"),
    ("kcal", "[Cal]", "kJ"),
    ("m[IU]/L", "u[IU]/mL", "[IU]/dL"),
    ("mg/dL", "mg.dL-1", "g/L"),
    ("10*9/L", "/uL", "1/nL"),
)
PAIRS = st.sampled_from(GROUPS).flatmap(lambda group: st.tuples(st.sampled_from(group), st.sampled_from(group)))
VALUES = st.floats(min_value=-1e9, max_value=1e9)
#: Below it floating point has fewer digits.
SMALLEST = 1e-300


@pytest.mark.parametrize(
    ("source", "wanted", "value", "expected"),
    [
        ("mm", "cm", 25.0, 2.5),
        ("µm²", "mm2", 1e6, 1.0),
        ("um^2", "mm²", 2.5e6, 2.5),
        ("mg/dL", "g/L", 100.0, 1.0),
        ("mg.dL-1", "mg/dL", 7.0, 7.0),
        ("mmol/l", "umol/L", 1.5, 1500.0),
        ("Cel", "K", 20.0, 293.15),
        ("°C", "K", 0.0, 273.15),
        ("[degF]", "Cel", 212.0, 100.0),
        ("mmHg", "kPa", 760.0, 101.325),
        ("%", "1", 12.0, 0.12),
        ("10*9/L", "10^6/mL", 5.0, 5.0),
        ("{cells}/uL", "/L", 1.0, 1e6),
        ("1/min", "/s", 60.0, 1.0),
        ("g/m/s", "g.m-1.s-1", 3.0, 3.0),
        ("U/L", "nkat/L", 6.0, 100.0),
        ("a", "d", 1.0, 365.25),
        ("dam", "m", 1.0, 10.0),
        ("㎜", "m", 1.0, 0.001),
        ("µmol/L", "mmol/l", 88.4, 0.0884),
        ("[degF]", "°C", 98.6, 37.0),
        ("Cel", "[degF]", -40.0, -40.0),
        ("mEq/L", "mmol/L", 4.0, 4.0),
        ("mIU/L", "uIU/mL", 2.5, 2.5),
        ("[Cal]", "kJ", 1.0, 4.184),
        ("mV", "uV", 1.0, 1000.0),
        ("bpm", "Hz", 60.0, 1.0),
        ("cmH2O", "Pa", 1.0, 98.0665),
    ],
)
def test_known_conversions_give_the_textbook_value(source, wanted, value, expected):
    assert conversion(source, wanted)(value) == pytest.approx(expected, rel=1e-6)


@given(PAIRS, VALUES)
def test_there_and_back_is_the_same_value(pair, value):
    source, wanted = pair
    there, back = conversion(source, wanted), conversion(wanted, source)
    # Units with their own zero lose digits near it, so the error is measured against the shift too.
    scale = max(abs(value), abs(back.b), abs(there.b * back.a))
    assert math.isclose(back(there(value)), value, rel_tol=1e-12, abs_tol=1e-12 * scale + SMALLEST)


@given(PAIRS, PAIRS, VALUES)
def test_a_conversion_is_the_same_straight_line_by_way_of_a_third_unit(pair, other, value):
    source, wanted = pair
    if parse_unit(other[0]).dimension != parse_unit(source).dimension:
        return
    through = conversion(other[0], wanted)(conversion(source, other[0])(value))
    assert math.isclose(through, conversion(source, wanted)(value), rel_tol=1e-9, abs_tol=1e-9 * 1e3)


def test_units_of_unlike_kinds_are_refused_with_both_kinds_named():
    with pytest.raises(UnitError) as refused:
        conversion("mg/dL", "mmol/L")
    assert "amount concentration" in refused.value.expected
    assert "mass concentration" in refused.value.got
    assert "molar mass" in refused.value.hint
    assert refused.value.reason == "NEEDS_MOLAR_MASS"
    with pytest.raises(UnitError) as refused:
        conversion("mm", "kg")
    assert (refused.value.expected, refused.value.got) == ("a unit of mass", "a unit of length")
    assert "molar mass" not in refused.value.hint
    with pytest.raises(UnitError, match="depends on the substance"):
        conversion("[IU]/L", "ng/L", molar_mass_g_per_mol=5808.0)


def test_a_molar_mass_lets_masses_and_amounts_convert_both_ways():
    glucose = 180.156
    assert conversion("mg/dL", "mmol/L", molar_mass_g_per_mol=glucose)(18.0156) == pytest.approx(1.0)
    assert conversion("mmol/L", "mg/dL", molar_mass_g_per_mol=glucose)(1.0) == pytest.approx(18.0156)
    with pytest.raises(UnitError):
        conversion("mm", "mmol/L", molar_mass_g_per_mol=glucose)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "furlong",
        "mg//dL",
        "mg/",
        ".m",
        "m.",
        "Cel/min",
        "m0",
        "m99",
        "kmin",
        "mm[",
        "0",
        "-1",
        "m/0",
        "½",
        "m" * 200,
    ],
)
def test_what_is_no_unit_is_refused(text):
    with pytest.raises(UnitError):
        parse_unit(text)


@given(st.text(max_size=30))
def test_any_text_is_a_unit_or_a_unit_error(text):
    with contextlib.suppress(UnitError):
        assert parse_unit(text).scale > 0


def test_a_kind_without_a_name_is_told_by_its_exponents():
    assert kind_of((1, 1, 0, 0, 0, 0, -1)) == "m1.g1.[IU]-1"
    assert parse_unit("mm2").kind == "area"


@pytest.mark.parametrize(
    ("written", "ucum"),
    [
        ("10⁹/L", "10*9/L"),
        ("×10⁹/L", "10*9/L"),
        ("x10^9/L", "10*9/L"),
        ("10³/µL", "10*3/uL"),
        ("10⁻³", "10*-3"),
        ("kg·m⁻²", "kg/m2"),
        ("mL/min/{1.73_m2}", "mL/min"),
        ("mL/min/1.73 m²", "mL/min"),
        ("{beats}/min", "/min"),
        ("J/(kg.K)", "J/kg/K"),
        ("(mg)/(dL)", "mg/dL"),
        ("mg/(dL/h)", "mg.h/dL"),
        ("mIU/mL", "m[IU]/mL"),
        ("µIU/ml", "u[IU]/mL"),
        ("[iU]/L", "[IU]/L"),
        ("IU", "[IU]"),
        ("mEq/mL", "meq/mL"),
        ("percent", "%"),
        ("m-2.10*3", "10*3/m2"),
    ],
)
def test_odd_spellings_are_the_unit_that_they_mean(written, ucum):
    line = conversion(written, ucum)
    assert (line.a, line.b) == (1.0, 0.0)


@pytest.mark.parametrize("text", ["1.5", "mL/min/(1.73.m2)", "2.5mg", "(mg)(dL)", "()", "mg/(dL", "mg)/(dL", "(m)2"])
def test_a_decimal_or_an_open_parenthesis_is_refused_rather_than_read_as_something_else(text):
    with pytest.raises(UnitError):
        parse_unit(text)
