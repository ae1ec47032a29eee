"""Words of the page "Consommation"."""

from reports.wording.languages import Words

FRENCH: Words = {
    "usage": "Consommation",
    "usage.own": "Votre consommation",
    "usage.of": "Consommation – {administration}",
}

ENGLISH: Words = {
    "usage": "Usage",
    "usage.own": "Your use",
    "usage.of": "Usage – {administration}",
}
