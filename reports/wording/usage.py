"""Words of the page "Consommation"."""

from reports.wording.languages import Words

FRENCH: Words = {
    "usage": "Consommation",
    "usage.own": "Votre consommation",
    "usage.of": "Consommation – {administration}",
    "explorer": "Explorateur",
    "explorer.open": "Ouvrir l’explorateur",
    "explorer.close": "Fermer l’explorateur",
    "explorer.what": (
        "Le même graphique, à survoler, à agrandir en y traçant un intervalle, et dont une série s’isole. Les mêmes "
        "chiffres sont dans le tableau de données."
    ),
    "explorer.waiting": ("L’explorateur se charge. Il a besoin de JavaScript ; le graphique et le tableau, non."),
    "explorer.series": "Isoler une série",
    "explorer.first": "De",
    "explorer.last": "À",
    "explorer.all": "Tout montrer",
    "explorer.bar": "Lire une barre",
    "explorer.nothing": "rien à montrer",
}

ENGLISH: Words = {
    "usage": "Usage",
    "usage.own": "Your use",
    "usage.of": "Usage – {administration}",
    "explorer": "Explorer",
    "explorer.open": "Open the explorer",
    "explorer.close": "Close the explorer",
    "explorer.what": (
        "The same chart, to hover over, to look at closer by dragging over an interval, and to isolate a series of. "
        "The same figures are in the data table."
    ),
    "explorer.waiting": "The explorer is loading. It needs JavaScript; the chart and the table don’t.",
    "explorer.series": "Isolate a series",
    "explorer.first": "From",
    "explorer.last": "To",
    "explorer.all": "Show everything",
    "explorer.bar": "Read a bar",
    "explorer.nothing": "nothing to show",
}
