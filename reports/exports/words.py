"""Headings of columns, in French and English; names of columns stay the same in every language."""

from collections.abc import Mapping

from reports.wording import Language

_WORDS = {
    "bucket_start": ("Début", "Start"),
    "tenant": ("Administration", "Administration"),
    "project": ("Projet", "Project"),
    "user": ("Personne (pseudonyme)", "Person (pseudonym)"),
    "api_key": ("Clé d'API", "API key"),
    "model": ("Modèle", "Model"),
    "operation": ("Opération", "Operation"),
    "requests": ("Requêtes", "Requests"),
    "input_tokens": ("Jetons en entrée", "Input tokens"),
    "cached_input_tokens": ("dont en cache (jetons)", "of which cached (tokens)"),
    "output_tokens": ("Jetons en sortie", "Output tokens"),
    "reasoning_tokens": ("dont raisonnement (jetons)", "of which reasoning (tokens)"),
    "audio_ms": ("Audio (ms)", "Audio (ms)"),
    "embedding_inputs": ("Textes vectorisés", "Embedding inputs"),
    "images": ("Images", "Images"),
    "pages": ("Pages", "Pages"),
    "documents": ("Documents", "Documents"),
    "bytes_in": ("Octets reçus", "Bytes in"),
    "bytes_out": ("Octets envoyés", "Bytes out"),
    "searches": ("Recherches", "Searches"),
    "web_searches": ("Recherches sur le web", "Web searches"),
    "storage_byte_hours": ("Stockage (octets × heures)", "Storage (bytes × hours)"),
    "requests_error": ("Requêtes en erreur", "Requests with an error"),
    "requests_aborted": ("Requêtes interrompues", "Aborted requests"),
    "requests_refused": ("Requêtes refusées", "Refused requests"),
    "uncounted_requests": ("Requêtes sans décompte", "Requests without a count"),
    "billed_amount": ("Montant facturé, hors taxes", "Amount billed, without tax"),
    "valued_amount": ("Montant valorisé, non facturé", "Amount valued, not billed"),
    "currency": ("Devise", "Currency"),
    "amount_state": ("État du montant", "State of the amount"),
}

HEADINGS: Mapping[str, Mapping[Language, str]] = {
    name: {"fr": french, "en": english} for name, (french, english) in _WORDS.items()
}
"""Only what people read has words: CSV in English keeps the names, as /v1/usage has them."""
