"""Words of the page that activates an account."""

from reports.wording.languages import Words

FRENCH: Words = {
    "activation": "Activer votre compte",
    "activation.field": "Code d’activation",
    "activation.hint": "Il est dans le courriel qui annonce votre accès ou votre invitation. Il sert une seule fois.",
    "activation.submit": "Activer",
    "activation.missing": "Saisissez le code du courriel.",
    "activation.done": "Votre compte est activé",
    "activation.token": "Votre jeton d’accès",
    "activation.once": (
        "Ce jeton n’est affiché qu’une seule fois\u00a0: copiez-le en lieu sûr avant de quitter ou de recharger cette "
        "page, et ne le transmettez à personne."
    ),
    "activation.account": "Compte",
    "activation.expiry": "Expiration du jeton",
    "activation.next": "Ce qu’il reste à faire",
    "activation.calls": "Dans ces appels, remplacez $TOKEN par votre jeton, et les mots en majuscules par vos valeurs.",
    "activation.read": "Lisez les conditions en vigueur\u00a0:",
    "activation.accept": "Acceptez chacune d’elles, dans la version lue\u00a0:",
    "activation.key": "Créez une clé d’API\u00a0; elle aussi n’est affichée qu’une seule fois\u00a0:",
    "activation.browse": (
        "Votre consommation est à l’adresse {url}. Connectez-vous-y avec ce jeton, ou par le fournisseur d’identité "
        "de votre administration s’il y est proposé."
    ),
    "activation.failed": "L’activation n’a pas abouti",
    "activation.retry": "Saisir un code",
    "activation.unknown": "Ce code n’existe pas.",
    "activation.check": "Copiez-le en entier depuis le dernier courriel reçu, puis saisissez-le de nouveau.",
    "activation.used": "Ce code a déjà servi\u00a0; le jeton a été affiché à ce moment-là.",
    "activation.expired": "Ce code a expiré, ou n’est plus accepté.",
    "activation.again": (
        "Pour recevoir un nouveau code, demandez de nouveau un accès, ou demandez une invitation à un gestionnaire de "
        "votre administration. Un compte déjà ouvert reçoit ainsi un nouveau jeton."
    ),
    "activation.tenant_suspended": "Votre administration est suspendue.",
    "activation.ask_operator": (
        "Adressez-vous à l’opérateur de la plateforme. Le code n’a pas été utilisé\u00a0; il vaut jusqu’à la date du "
        "courriel."
    ),
    "activation.account_suspended": "Votre compte est suspendu.",
    "activation.ask_manager": (
        "Adressez-vous à un gestionnaire de votre administration. Le code n’a pas été utilisé\u00a0; il vaut jusqu’à "
        "la date du courriel."
    ),
    "activation.later": "Ouvrez alors de nouveau le lien du courriel. Si le code a déjà servi, la page le dira.",
}

ENGLISH: Words = {
    "activation": "Activate your account",
    "activation.field": "Activation code",
    "activation.hint": "It is in the mail that tells you of your access or invitation. It works once.",
    "activation.submit": "Activate",
    "activation.missing": "Enter the code of the mail.",
    "activation.done": "Your account is activated",
    "activation.token": "Your access token",
    "activation.once": (
        "This token is shown only once: copy it to a safe place before you leave or reload this page, and don’t give "
        "it to anybody."
    ),
    "activation.account": "Account",
    "activation.expiry": "End of the token",
    "activation.next": "What is left to do",
    "activation.calls": "In these calls, put your token in place of $TOKEN, and your values for the words in capitals.",
    "activation.read": "Read the terms in force:",
    "activation.accept": "Accept each of them, in the version you read:",
    "activation.key": "Make an API key; it is shown only once, too:",
    "activation.browse": (
        "Your usage is at {url}. Sign in there with this token, or at your administration’s identity provider where "
        "it is offered."
    ),
    "activation.failed": "The activation did not succeed",
    "activation.retry": "Enter a code",
    "activation.unknown": "This code does not exist.",
    "activation.check": "Copy it whole from the last mail you got, then enter it again.",
    "activation.used": "This code has been used; the token was shown then.",
    "activation.expired": "This code has expired, or is no longer accepted.",
    "activation.again": (
        "To get a new code, ask for access again, or ask a manager of your administration for an invitation. An "
        "account that exists gets a new token this way."
    ),
    "activation.tenant_suspended": "Your administration is suspended.",
    "activation.ask_operator": (
        "Ask the platform’s operator. The code has not been used; it is good until the date in the mail."
    ),
    "activation.account_suspended": "Your account is suspended.",
    "activation.ask_manager": (
        "Ask a manager of your administration. The code has not been used; it is good until the date in the mail."
    ),
    "activation.later": "Then open the link of the mail again. If the code has been used, the page will say so.",
}
