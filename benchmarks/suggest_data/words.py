"""Words that the held-out columns of `ontology_suggest` are altered with, and concepts that stand beside them."""

from __future__ import annotations

from collections.abc import Mapping

#: Word or words of a label -> what a table's author may write for it.
RENAMED: Mapping[str, tuple[str, ...]] = {
    "mean arterial pressure": ("average bp", "mean bp", "map pressure"),
    "mean": ("avg", "average"),
    "worst": ("largest", "max", "maximum"),
    "error": ("stderr", "std error", "se"),
    "radius": ("radius", "nucleus radius"),
    "perimeter": ("perimeter", "circumference"),
    "area": ("area", "surface area"),
    "concave points": ("concave points", "num concave points", "concavepoints"),
    "fractal dimension": ("fractal dimension", "fractal dim"),
    "symmetry": ("symmetry", "sym"),
    "age": ("patient age", "age at visit"),
    "sex": ("patient sex", "sex code"),
    "body mass index": ("bmi value", "body mass idx", "index body mass"),
    "alcohol": ("alcohol content", "alcohol level"),
    "malic acid": ("acid malic", "malic acid conc"),
    "alcalinity of ash": ("ash alcalinity", "ash alkalinity"),
    "ash": ("ash amount", "ash total"),
    "magnesium": ("magnesium level", "mg content"),
    "total phenols": ("phenols total", "phenol total"),
    "nonflavanoid phenols": ("phenols nonflavanoid", "non flavanoid phenols"),
    "flavanoids": ("flavanoid", "flavanoid content"),
    "proanthocyanins": ("proanthocyanin", "proanthocyanins level"),
    "color intensity": ("intensity of color", "colour intens"),
    "hue": ("hue value", "wine hue"),
    "OD280/OD315 of diluted wines": ("od280 od315", "od280 over od315", "diluted wines od"),
    "proline": ("proline level", "amino acid proline"),
}

_PROPERTIES: Mapping[str, Mapping[str, str]] = {
    "radius": {"fr": "rayon", "es": "radio", "it": "raggio"},
    "texture": {"fr": "texture", "es": "textura", "it": "tessitura"},
    "perimeter": {"fr": "périmètre", "es": "perímetro", "it": "perimetro"},
    "area": {"fr": "aire", "es": "área", "it": "area"},
    "smoothness": {"fr": "lissage", "es": "suavidad", "it": "levigatezza"},
    "compactness": {"fr": "compacité", "es": "compacidad", "it": "compattezza"},
    "concavity": {"fr": "concavité", "es": "concavidad", "it": "concavità"},
    "concave points": {"fr": "points concaves", "es": "puntos cóncavos", "it": "punti concavi"},
    "symmetry": {"fr": "symétrie", "es": "simetría", "it": "simmetria"},
    "fractal dimension": {"fr": "dimension fractale", "es": "dimensión fractal", "it": "dimensione frattale"},
}
_STATISTICS: Mapping[str, Mapping[str, str]] = {
    "mean": {"fr": "moyenne", "es": "media", "it": "media"},
    "worst": {"fr": "pire", "es": "peor", "it": "peggiore"},
    "error": {"fr": "erreur", "es": "error", "it": "errore"},
}


def _cancer() -> dict[str, dict[str, str]]:
    made = {}
    for name, words in _PROPERTIES.items():
        for statistic, others in _STATISTICS.items():
            label = f"{name} error" if statistic == "error" else f"{statistic} {name}"
            made[label] = {language: f"{words[language]} {others[language]}" for language in words}
    return made


#: Label -> language -> the same in that language; none of these languages is in the ontology.
TRANSLATED: Mapping[str, Mapping[str, str]] = {
    **_cancer(),
    "age": {"fr": "âge du patient", "es": "edad", "it": "età"},
    "sex": {"fr": "sexe", "es": "sexo", "it": "sesso"},
    "body mass index": {
        "fr": "indice de masse corporelle",
        "es": "índice de masa corporal",
        "it": "indice massa corporea",
    },
    "mean arterial pressure": {
        "fr": "pression artérielle moyenne",
        "es": "presión arterial media",
        "it": "pressione media",
    },
    "alcohol": {"fr": "alcool", "es": "grado alcohólico", "it": "alcol"},
    "malic acid": {"fr": "acide malique", "es": "ácido málico", "it": "acido malico"},
    "ash": {"fr": "cendres", "es": "ceniza", "it": "ceneri"},
    "alcalinity of ash": {
        "fr": "alcalinité des cendres",
        "es": "alcalinidad de la ceniza",
        "it": "alcalinità delle ceneri",
    },
    "magnesium": {"fr": "magnésium", "es": "magnesio", "it": "magnesio"},
    "total phenols": {"fr": "phénols totaux", "es": "fenoles totales", "it": "fenoli totali"},
    "flavanoids": {"fr": "flavonoïdes", "es": "flavonoides", "it": "flavonoidi"},
    "nonflavanoid phenols": {
        "fr": "phénols non flavonoïdes",
        "es": "fenoles no flavonoides",
        "it": "fenoli non flavonoidi",
    },
    "proanthocyanins": {"fr": "proanthocyanidines", "es": "proantocianinas", "it": "proantocianidine"},
    "color intensity": {"fr": "intensité de couleur", "es": "intensidad de color", "it": "intensità di colore"},
    "hue": {"fr": "teinte", "es": "matiz", "it": "tonalità"},
    "OD280/OD315 of diluted wines": {
        "fr": "DO280 DO315 vins dilués",
        "es": "DO280 DO315 vinos",
        "it": "DO280 DO315 vini",
    },
    "proline": {"fr": "taux de proline", "es": "prolina", "it": "prolina"},
}

_NEAR = (
    ("mean corpuscular volume", "fL", 50.0, 150.0),
    ("mean platelet volume", "fL", 4.0, 20.0),
    ("mean nerve diameter", "um", 1.0, 30.0),
    ("maximum heart rate", "/min", 40.0, 250.0),
    ("maximum tumour diameter", "mm", 0.0, 300.0),
    ("tumour area", "mm2", 0.0, 5000.0),
    ("tumour perimeter", "mm", 0.0, 500.0),
    ("tumour radius", "mm", 0.0, 150.0),
    ("radius of the pupil", "mm", 0.5, 6.0),
    ("body surface area", "m2", 0.2, 4.0),
    ("skin texture score", "1", 0.0, 10.0),
    ("facial symmetry score", "1", 0.0, 10.0),
    ("bone compactness index", "1", 0.0, 1.0),
    ("measurement error of the scale", "g", 0.0, 100.0),
    ("refractive error", "1", -20.0, 20.0),
    ("age at menopause", "a", 20.0, 70.0),
    ("age at diagnosis", "a", 0.0, 120.0),
    ("gestational age", "wk", 20.0, 45.0),
    ("body height", "cm", 30.0, 250.0),
    ("body weight", "kg", 1.0, 400.0),
    ("body fat share", "%", 2.0, 70.0),
    ("body temperature", "Cel", 30.0, 44.0),
    ("fat free mass index", "kg/m2", 8.0, 40.0),
    ("systolic blood pressure", "mm[Hg]", 50.0, 280.0),
    ("diastolic blood pressure", "mm[Hg]", 20.0, 180.0),
    ("central venous pressure", "mm[Hg]", -5.0, 40.0),
    ("intraocular pressure", "mm[Hg]", 2.0, 80.0),
    ("alcohol intake a week", "g", 0.0, 2000.0),
    ("tartaric acid", "g/L", 0.0, 10.0),
    ("citric acid", "g/L", 0.0, 5.0),
    ("lactic acid", "g/L", 0.0, 10.0),
    ("volatile acid", "g/L", 0.0, 3.0),
    ("residual sugar", "g/L", 0.0, 200.0),
    ("free sulfur dioxide", "mg/L", 0.0, 200.0),
    ("total sulfur dioxide", "mg/L", 0.0, 500.0),
    ("total tannins", "g/L", 0.0, 8.0),
    ("anthocyanins", "mg/L", 0.0, 2000.0),
    ("skin colour intensity", "1", 0.0, 10.0),
    ("OD260/OD280 of nucleic acids", "1", 0.5, 3.0),
    ("ash weight of bone", "g", 0.0, 3000.0),
)
_ANALYTES = (
    ("sodium", "mmol/L", 1.0, 300.0),
    ("potassium", "mmol/L", 0.5, 200.0),
    ("chloride", "mmol/L", 1.0, 300.0),
    ("calcium", "mmol/L", 0.1, 20.0),
    ("phosphate", "mmol/L", 0.1, 50.0),
    ("iron", "umol/L", 0.5, 100.0),
    ("zinc", "umol/L", 0.5, 60.0),
    ("copper", "umol/L", 0.5, 60.0),
    ("glucose", "mmol/L", 0.5, 60.0),
    ("lactate", "mmol/L", 0.1, 30.0),
    ("urea", "mmol/L", 0.5, 500.0),
    ("creatinine", "umol/L", 10.0, 20000.0),
    ("uric acid", "umol/L", 50.0, 5000.0),
    ("bilirubin", "umol/L", 0.5, 800.0),
    ("albumin", "g/L", 0.1, 70.0),
    ("total protein", "g/L", 0.1, 120.0),
    ("cholesterol", "mmol/L", 0.5, 20.0),
    ("triglycerides", "mmol/L", 0.1, 40.0),
    ("cortisol", "nmol/L", 5.0, 2000.0),
    ("insulin", "pmol/L", 5.0, 3000.0),
    ("ferritin", "ug/L", 1.0, 5000.0),
    ("transferrin", "g/L", 0.1, 6.0),
    ("folate", "nmol/L", 1.0, 100.0),
    ("amylase", "U/L", 5.0, 5000.0),
    ("lipase", "U/L", 5.0, 5000.0),
    ("glycine", "umol/L", 10.0, 3000.0),
    ("alanine", "umol/L", 10.0, 3000.0),
    ("leucine", "umol/L", 10.0, 1000.0),
    ("lysine", "umol/L", 10.0, 2000.0),
    ("tyrosine", "umol/L", 5.0, 1000.0),
    ("osmolality", "mmol/kg", 50.0, 1400.0),
    ("lead", "ug/L", 0.0, 1000.0),
    ("mercury", "ug/L", 0.0, 500.0),
    ("caffeine", "mg/L", 0.0, 100.0),
    ("ethanol", "g/L", 0.0, 6.0),
    ("ammonia", "umol/L", 5.0, 1000.0),
    ("citrate", "umol/L", 10.0, 6000.0),
    ("oxalate", "umol/L", 1.0, 2000.0),
    ("vitamin A", "umol/L", 0.1, 10.0),
    ("vitamin C", "umol/L", 1.0, 500.0),
)
#: Label, UCUM unit and plausible range of 200 concepts that none of the held-out columns means.
DISTRACTORS: tuple[tuple[str, str, float, float], ...] = (
    *_NEAR,
    *(
        (f"{analyte} in {specimen}", unit, low, high)
        for analyte, unit, low, high in _ANALYTES
        for specimen in ("serum", "urine", "plasma", "saliva")
    ),
)
