"""Words of notices and of the ends of models."""

from reports.wording.languages import Words

FRENCH: Words = {
    "notices": "Avis",
    "notice.maintenance": "Maintenance",
    "notice.incident": "Incident",
    "notice.information": "Information",
    "notice.live": "en cours",
    "notice.coming": "à venir",
    "notice.from_to": "Du {start} au {end} (fuseau {zone})",
    "notice.since": "Depuis le {start} (fuseau {zone}), jusqu’à nouvel ordre",
    "notice.coming_open": "À partir du {start} (fuseau {zone}), jusqu’à nouvel ordre",
    "retirement": "Retrait",
    "retirement.model": "Le modèle {name} va être retiré",
    "retirement.category": "La catégorie {name} va être retirée",
    "retirement.from": "Toute requête qui demande ce nom sera refusée à partir du {start} (fuseau {zone}).",
    "retirement.successor": "Successeur\u00a0: {successor}.",
    "retirement.no_successor": "Aucun successeur n’est annoncé.",
}

ENGLISH: Words = {
    "notices": "Notices",
    "notice.maintenance": "Maintenance",
    "notice.incident": "Incident",
    "notice.information": "Information",
    "notice.live": "under way",
    "notice.coming": "to come",
    "notice.from_to": "From {start} to {end} ({zone} time zone)",
    "notice.since": "Since {start} ({zone} time zone), until further notice",
    "notice.coming_open": "From {start} ({zone} time zone), until further notice",
    "retirement": "Retirement",
    "retirement.model": "The model {name} is going to be retired",
    "retirement.category": "The category {name} is going to be retired",
    "retirement.from": "Every request for this name will be refused from {start} ({zone} time zone).",
    "retirement.successor": "Successor: {successor}.",
    "retirement.no_successor": "No successor is announced.",
}
