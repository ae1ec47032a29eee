"""Words of the page "Méthode et accessibilité": what figures mean, the glossary, sources, and the declaration."""

from reports.wording.languages import Words

FRENCH: Words = {
    "method": "Méthode et accessibilité",
    "method.what": "Ce que veulent dire les chiffres, d’où ils viennent, et ce qui a été vérifié de ces pages.",
    "method.contents": "Sommaire",
    "method.counting": "Comment l’usage est compté",
    "method.counting.event": (
        "La passerelle envoie un événement après chaque requête. Il est enregistré une fois et pour toujours, dans "
        "un registre où rien n’est modifié\u00a0: une correction est une écriture de plus, avec un motif et un "
        "auteur."
    ),
    "method.counting.content": "Aucun champ d’un événement ne peut contenir le texte d’une demande ou d’une réponse.",
    "method.counting.tokens": (
        "Les jetons sont ceux que le modèle déclare avoir lus (entrée) et écrits (sortie). Les jetons repris du "
        "cache font partie de l’entrée, ceux de raisonnement de la sortie\u00a0: ils ne s’y ajoutent jamais."
    ),
    "method.counting.others": (
        "L’audio est compté en millisecondes, la vectorisation en textes, la reconnaissance de texte en pages, le "
        "stockage en octets-heures. Toutes les quantités sont des nombres entiers."
    ),
    "method.counting.unknown": (
        "«\u00a0—\u00a0» veut dire inconnu, 0 est une mesure. Une somme additionne ce qui est connu\u00a0; le "
        "nombre de requêtes sans comptage dit à côté combien il en manque."
    ),
    "method.counting.time": (
        "Une requête appartient à l’instant où elle a été admise. Les jours et les mois sont ceux du fuseau "
        "{zone}\u00a0: le jour où l’heure change dure 23 ou 25 heures, et ses heures doubles sont distinguées par "
        "leur décalage."
    ),
    "method.carbon": "Comment les émissions sont calculées",
    "method.carbon.energy": (
        "L’énergie lue aux compteurs des processeurs graphiques est répartie entre les requêtes qu’ils servaient, "
        "selon leur travail et leur présence. Les parts des requêtes, l’attente et le non attribué redonnent "
        "exactement le compteur."
    ),
    "method.carbon.use": (
        "S’y ajoutent le serveur et le bâtiment. L’énergie est multipliée par le facteur d’émission du réseau "
        "électrique dans l’heure, et par celui du contrat d’électricité lorsqu’il est connu\u00a0: les deux sont "
        "donnés."
    ),
    "method.carbon.making": (
        "La fabrication des machines est comptée pour le temps où les requêtes les occupaient, sur une durée de vie "
        "de 3 ans (fourchette\u00a0: de 2 à 6 ans)."
    ),
    "method.carbon.tiers": (
        "Chaque part de l’énergie a une qualité\u00a0: A et B, mesurées\u00a0; C et D, modélisées à partir de "
        "mesures publiées. Une somme montre la part de chacune."
    ),
    "method.carbon.bounds": (
        "Une fourchette contient ce que laissent ouvert les compteurs, le serveur, le bâtiment, le facteur "
        "d’émission et la durée de vie. Elle est additionnée telle quelle\u00a0: celle d’une somme est prudente."
    ),
    "method.carbon.unmeasured": (
        "«\u00a0Non mesuré\u00a0»\u00a0: ni un compteur ni le modèle ne peut rien en dire. Ces requêtes ne sont "
        "dans aucun chiffre d’émissions, leur nombre est affiché, et elles ne valent jamais 0."
    ),
    "method.carbon.when": (
        "Une heure est calculée dix minutes après sa fin, et de nouveau dès qu’un événement, un relevé ou un "
        "facteur qui la concerne arrive plus tard."
    ),
    "method.money": "Comment les montants sont calculés",
    "method.money.line": (
        "Une ligne est une quantité fois un prix unitaire, calculée en nombres entiers et arrondie une seule fois, "
        "au centime le plus proche (un demi-centime vers le haut). La TVA est calculée sur la somme des lignes de "
        "chaque taux."
    ),
    "method.money.indicative": (
        "Un montant est indicatif tant que le mois n’est pas clos. La clôture le fixe, dans un relevé, une facture "
        "ou un avoir numéroté, que chacun peut recalculer à l’identique."
    ),
    "method.money.valued": (
        "«\u00a0Valorisé, non facturé\u00a0»\u00a0: ce que l’usage vaudrait au barème, pour un accès gratuit ou "
        "réglé autrement. Seul ce qui est «\u00a0à facturer\u00a0» sera dû."
    ),
    "method.money.request": (
        "Le coût d’une requête et les limites en euros suivent le premier prix du barème, sans tranche, gratuité ni "
        "plafond\u00a0: ils n’ont pas à s’additionner jusqu’au montant du mois."
    ),
    "method.money.unpriced": "Un usage sans prix n’a pas de montant\u00a0: il est signalé, et ne vaut pas 0\u00a0€.",
    "method.glossary": "Glossaire",
    "method.term.token": "Jeton",
    "method.term.token.means": "Fragment de texte que lit ou écrit un modèle, de quelques lettres.",
    "method.term.request": "Requête",
    "method.term.request.means": "Un appel à un modèle ou à un service de la plateforme, quelle qu’en soit l’issue.",
    "method.term.entry": "Écriture",
    "method.term.entry.means": "Groupe d’événements enregistrés ensemble\u00a0; leurs numéros se suivent sans trou.",
    "method.term.limit": "Limite",
    "method.term.limit.means": "Ce qui peut être utilisé pendant une fenêtre de temps, puis est remis à zéro.",
    "method.term.hold": "Réservation",
    "method.term.hold.means": (
        "Ce qu’une requête en cours pourrait encore utiliser\u00a0; elle est remplacée par l’usage réel."
    ),
    "method.term.convention": "Convention",
    "method.term.convention.means": "Accord avec une administration, qui finance l’usage et fixe limites et prix.",
    "method.term.envelope": "Enveloppe",
    "method.term.envelope.means": "Montant ou émissions qu’une convention prévoit jusqu’à sa fin.",
    "method.term.book": "Barème",
    "method.term.book.means": (
        "Prix des modèles et des opérations, avec leurs dates\u00a0; une version n’est jamais modifiée."
    ),
    "method.term.co2e": "CO2e",
    "method.term.co2e.means": "Gaz à effet de serre, ramenés à la masse de CO2 qui aurait le même effet.",
    "method.term.factor": "Facteur d’émission",
    "method.term.factor.means": "Émissions d’un kilowattheure d’électricité, en un lieu et à une heure.",
    "method.sources": "Sources et licences",
    "method.sources.codecarbon": (
        "Facteurs annuels de 213 pays, à défaut de mieux\u00a0: codecarbon (licence MIT). Les facteurs horaires "
        "(RTE, Electricity Maps, autres) sont importés par l’exploitant, aux conditions de leur éditeur\u00a0; la "
        "page Empreinte carbone nomme ceux qui ont servi."
    ),
    "method.sources.ecologits": (
        "Fabrication\u00a0: 273\u00a0kg pour un processeur graphique et 5\u202f700\u00a0kg pour un serveur de huit, "
        "d’après EcoLogits 0.11 (licence MPL 2.0)."
    ),
    "method.sources.mlenergy": (
        "Modèle de ce qu’aucun compteur n’a vu\u00a0: ajusté aux mesures publiées par ML.ENERGY (Chung et al. 2026, "
        "arXiv:2601.22076)."
    ),
    "method.sources.building": (
        "Bâtiment, lorsque le catalogue n’en dit rien\u00a0: 1,4 fois l’énergie des machines (de 1,1 à 1,6), la "
        "moyenne mondiale de l’enquête 2024 de l’Uptime Institute étant de 1,56."
    ),
    "method.declaration": "Déclaration d’accessibilité",
    "method.declaration.commitment": (
        "{entity} s’engage à rendre ces pages accessibles, conformément à l’article 47 de la loi n°\u00a02005-102 "
        "du 11\u00a0février 2005. Cette déclaration s’applique aux pages de Jauge, version {version}."
    ),
    "method.declaration.entity": "L’exploitant de cette plateforme",
    "method.state": "État de conformité",
    "method.state.said": (
        "Ces pages sont non conformes avec le référentiel général d’amélioration de l’accessibilité (RGAA), version "
        "4.1, au sens de la loi\u00a0: aucun audit en cours de validité ne mesure le respect de ses critères. Elles "
        "sont soumises à chaque version à des contrôles automatiques, dont le résultat suit."
    ),
    "method.checked": "Ce qui est contrôlé, et comment",
    "method.checked.axe": (
        "Sur chaque page et dans ses états (vide, erreur, une ligne, mille lignes), axe-core ne trouve aucun "
        "défaut, en thème clair et sombre, en français et en anglais, dans Chromium."
    ),
    "method.checked.keyboard": (
        "Au clavier seul\u00a0: le lien d’évitement, l’ordre de parcours, un focus toujours visible, et l’ouverture "
        "de ce qui se déplie."
    ),
    "method.checked.zoom": "À 200\u00a0% et sur un écran large de 320 pixels, sans défilement horizontal de la page.",
    "method.checked.scripts": "Sans JavaScript, et à l’impression.",
    "method.checked.contrast": (
        "Contraste d’au moins 4,5 pour le texte et de 3 pour les séries des graphiques, que des textures "
        "distinguent aussi."
    ),
    "method.checked.charts": (
        "Chaque graphique a un titre, une phrase qui dit ce qu’il montre, et un tableau des mêmes chiffres."
    ),
    "method.unchecked": "Ce qui ne l’est pas",
    "method.unchecked.audit": "Les critères du RGAA que seul un humain peut juger n’ont pas été audités.",
    "method.unchecked.readers": "Aucun essai n’a été fait avec un lecteur d’écran, ni par des personnes handicapées.",
    "method.unchecked.pdf": (
        "Les documents PDF se déclarent conformes à PDF/UA-1\u00a0; seule cette déclaration est contrôlée, pas leur "
        "lecture."
    ),
    "method.unchecked.explorer": (
        "La documentation de l’API, à l’adresse /docs, est une page d’un autre éditeur\u00a0: elle n’est pas contrôlée."
    ),
    "method.made": "Établissement de cette déclaration",
    "method.made.said": (
        "Technologies\u00a0: HTML, CSS, SVG, JavaScript. Environnement de test\u00a0: Chromium piloté par Playwright, "
        "axe-core. Contenus non accessibles connus\u00a0: aucun d’après ces contrôles, qui ne remplacent pas un audit."
    ),
    "method.contact": "Retour d’information et contact",
    "method.contact.said": (
        "Si vous n’arrivez pas à accéder à un contenu, écrivez à {contact} pour être orienté vers une alternative "
        "accessible ou obtenir le contenu sous une autre forme."
    ),
    "method.contact.none": (
        "L’exploitant n’a pas encore indiqué d’adresse. Adressez-vous à la personne qui vous a donné accès à la "
        "plateforme."
    ),
    "method.recourse": "Voies de recours",
    "method.recourse.said": (
        "Si vous avez signalé un défaut d’accessibilité qui vous empêche d’accéder à un contenu et que vous n’avez "
        "pas obtenu de réponse satisfaisante, vous pouvez écrire au Défenseur des droits ou contacter son délégué "
        "dans votre région (https://www.defenseurdesdroits.fr), ou lui envoyer un courrier gratuit, sans "
        "timbre\u00a0: Défenseur des droits, Libre réponse 71120, 75342 Paris CEDEX 07."
    ),
}

ENGLISH: Words = {
    "method": "Method and accessibility",
    "method.what": "What the figures mean, where they come from, and what was checked of these pages.",
    "method.contents": "Contents",
    "method.counting": "How use is counted",
    "method.counting.event": (
        "The gateway sends an event after each request. It is recorded once and for ever, in a ledger where nothing "
        "is changed: a correction is one more entry, with a reason and an author."
    ),
    "method.counting.content": "No field of an event can hold the text of a prompt or an answer.",
    "method.counting.tokens": (
        "Tokens are those that the model says it read (input) and wrote (output). Cached tokens are a part of the "
        "input, reasoning tokens of the output: they are never added to them."
    ),
    "method.counting.others": (
        "Audio is counted in milliseconds, embedding in texts, text recognition in pages, storage in byte-hours. "
        "All quantities are whole numbers."
    ),
    "method.counting.unknown": (
        "“—” means unknown, 0 is a measurement. A sum adds up what is known; the number of requests without a count "
        "says beside it how many it lacks."
    ),
    "method.counting.time": (
        "A request belongs to the instant of its admission. Days and months are those of the time zone {zone}: the "
        "day on which clocks change has 23 or 25 hours, and hours that come twice are told apart by their offset."
    ),
    "method.carbon": "How emissions are worked out",
    "method.carbon.energy": (
        "Energy read from the counters of graphics processors is shared among the requests that they served, by "
        "their work and their presence. The parts of requests, waiting and what is nobody’s sum to the counter "
        "exactly."
    ),
    "method.carbon.use": (
        "Server and building are added. The energy is multiplied by the emission factor of the grid in that hour, "
        "and by that of the electricity contract where it is known: both are given."
    ),
    "method.carbon.making": (
        "Making the machines counts for the time in which requests occupied them, over a service life of 3 years "
        "(range: 2 to 6 years)."
    ),
    "method.carbon.tiers": (
        "Each part of the energy has a quality: A and B, measured; C and D, modelled from published measurements. A "
        "sum shows the share of each."
    ),
    "method.carbon.bounds": (
        "A range holds what counters, server, building, emission factor and service life leave open. It is added up "
        "as it is: that of a sum is cautious."
    ),
    "method.carbon.unmeasured": (
        "“Not measured”: neither a counter nor the model can say anything of it. Such requests are in no figure of "
        "emissions, their number is shown, and they are never 0."
    ),
    "method.carbon.when": (
        "An hour is worked out ten minutes after its end, and again as soon as an event, a reading or a factor that "
        "concerns it comes later."
    ),
    "method.money": "How amounts are worked out",
    "method.money.line": (
        "A line is a quantity times a unit price, reckoned in whole numbers and rounded once, to the nearest cent "
        "(half a cent up). VAT is reckoned on the sum of the lines of each rate."
    ),
    "method.money.indicative": (
        "An amount is indicative as long as the month isn’t closed. Closing it settles it, in a numbered statement, "
        "invoice or credit note, which anybody can work out again to the same bytes."
    ),
    "method.money.valued": (
        "“Valued, not invoiced”: what the use would be worth by the price book, of free access or where it is paid "
        "otherwise. Only what is “to be invoiced” will be owed."
    ),
    "method.money.request": (
        "The cost of a request, and limits in euros, follow the first price of the book, without tiers, free "
        "quantities or caps: they needn’t add up to the amount of the month."
    ),
    "method.money.unpriced": "Use without a price has no amount: it is pointed out, and isn’t €0.",
    "method.glossary": "Glossary",
    "method.term.token": "Token",
    "method.term.token.means": "A piece of text that a model reads or writes, of a few letters.",
    "method.term.request": "Request",
    "method.term.request.means": "A call of a model or of a service of the platform, whatever its outcome.",
    "method.term.entry": "Entry",
    "method.term.entry.means": "A group of events that were recorded together; their numbers have no gap.",
    "method.term.limit": "Limit",
    "method.term.limit.means": "What may be used within a window of time, and is then reset.",
    "method.term.hold": "Hold",
    "method.term.hold.means": "What a request under way may still use; it is replaced by its real use.",
    "method.term.convention": "Convention",
    "method.term.convention.means": (
        "An agreement with an administration, which funds use and sets limits and prices."
    ),
    "method.term.envelope": "Envelope",
    "method.term.envelope.means": "The amount or the emissions that a convention has until its end.",
    "method.term.book": "Price book",
    "method.term.book.means": "Prices of models and operations, with their dates; a version is never changed.",
    "method.term.co2e": "CO2e",
    "method.term.co2e.means": "Greenhouse gases, as the mass of CO2 that would have the same effect.",
    "method.term.factor": "Emission factor",
    "method.term.factor.means": "Emissions of a kilowatt-hour of electricity, in one place and hour.",
    "method.sources": "Sources and licences",
    "method.sources.codecarbon": (
        "Yearly factors of 213 countries, for want of better: codecarbon (MIT licence). Hourly factors (RTE, "
        "Electricity Maps, others) are imported by the operator, on their publisher’s terms; the page Carbon names "
        "those that were used."
    ),
    "method.sources.ecologits": (
        "Manufacture: 273\u00a0kg for a graphics processor and 5,700\u00a0kg for a server of eight, by EcoLogits "
        "0.11 (licence MPL 2.0)."
    ),
    "method.sources.mlenergy": (
        "Model of what no counter saw: fitted to the measurements published by ML.ENERGY (Chung et al. 2026, "
        "arXiv:2601.22076)."
    ),
    "method.sources.building": (
        "Building, where the catalogue says nothing of it: 1.4 times the energy of the machines (1.1 to 1.6), the "
        "world mean of the Uptime Institute’s survey of 2024 being 1.56."
    ),
    "method.declaration": "Accessibility statement",
    "method.declaration.commitment": (
        "{entity} undertakes to make these pages accessible, according to article 47 of the French law "
        "no.\u00a02005-102 of 11\u00a0February 2005. This statement is of the pages of Jauge, version {version}."
    ),
    "method.declaration.entity": "The operator of this platform",
    "method.state": "State of conformity",
    "method.state.said": (
        "These pages do not conform to the French general accessibility framework (RGAA), version 4.1, in the sense "
        "of the law: no valid audit measures whether its criteria are met. With each version they go through "
        "automatic checks, whose result follows."
    ),
    "method.checked": "What is checked, and how",
    "method.checked.axe": (
        "On every page and in its states (empty, error, one row, a thousand rows), axe-core finds no fault, in the "
        "light and the dark theme, in French and in English, in Chromium."
    ),
    "method.checked.keyboard": (
        "With the keyboard alone: the skip link, the order, a focus that is always visible, and opening what unfolds."
    ),
    "method.checked.zoom": "At 200% and on a screen 320 pixels wide, without the page scrolling sideways.",
    "method.checked.scripts": "Without JavaScript, and in print.",
    "method.checked.contrast": (
        "A contrast of at least 4.5 for text and 3 for the series of charts, which textures tell apart as well."
    ),
    "method.checked.charts": (
        "Every chart has a title, a sentence that says what it shows, and a table of the same figures."
    ),
    "method.unchecked": "What isn’t",
    "method.unchecked.audit": "The criteria of the RGAA that only a human can judge have not been audited.",
    "method.unchecked.readers": "Nothing was tried with a screen reader, nor by people with disabilities.",
    "method.unchecked.pdf": (
        "PDF documents declare that they conform to PDF/UA-1; only that declaration is checked, not how they read."
    ),
    "method.unchecked.explorer": (
        "The documentation of the API, at /docs, is a page of another publisher: it isn’t checked."
    ),
    "method.made": "How this statement was made",
    "method.made.said": (
        "Technologies: HTML, CSS, SVG, JavaScript. Tested with: Chromium driven by Playwright, axe-core. Known "
        "content that isn’t accessible: none by these checks, which don’t replace an audit."
    ),
    "method.contact": "Feedback and contact",
    "method.contact.said": (
        "If you can’t get at some content, write to {contact} to be shown an accessible alternative or be given the "
        "content in another form."
    ),
    "method.contact.none": (
        "The operator hasn’t given an address yet. Ask the person who gave you access to the platform."
    ),
    "method.recourse": "Recourse",
    "method.recourse.said": (
        "If you told of a fault that keeps you from some content and got no satisfactory answer, you can write to "
        "the French Defender of Rights or to their delegate in your region (https://www.defenseurdesdroits.fr), or "
        "send a letter, free and without a stamp: Défenseur des droits, Libre réponse 71120, 75342 Paris CEDEX 07."
    ),
}
