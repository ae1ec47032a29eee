"""Words of the page that signs in, and of signing out."""

from reports.wording.languages import Words

FRENCH: Words = {
    "sign_in": "Se connecter",
    "sign_in.token": "Avec un jeton d’accès",
    "sign_in.token.field": "Jeton d’accès",
    "sign_in.token.hint": "Il a été affiché à l’activation de votre compte. Il commence par {prefix}.",
    "sign_out": "Se déconnecter",
    "signed_out": "Vous êtes déconnecté.",
    "refused.missing_token": "Saisissez votre jeton d’accès.",
    "refused.invalid_token": "Ce jeton est inconnu, révoqué ou expiré.",
    "refused.wrong_role": "Ce jeton n’est pas celui d’une personne\u00a0: il n’ouvre pas les pages.",
    "sign_in.provider": "Avec votre compte professionnel",
    "sign_in.provider.go": "Se connecter avec {provider}",
    "sign_in.provider.hint": (
        "Votre administration est reconnue à son SIRET. Sans compte ici, vous pourrez en demander un."
    ),
    "signed_out.title": "Vous êtes déconnecté",
    "signed_out.here": "Votre session est close ici. Elle est encore ouverte chez votre fournisseur d’identité.",
    "signed_out.there": "Se déconnecter aussi de {provider}",
    "signed_out_everywhere": "Vous êtes déconnecté de tous vos navigateurs.",
    "sessions": "Mes sessions",
    "sessions.own": "Navigateurs sur lesquels vous êtes connecté",
    "sessions.way": "Connexion",
    "sessions.way.oidc": "par le fournisseur d’identité",
    "sessions.way.token": "avec un jeton d’accès",
    "sessions.way.demo": "par la démonstration",
    "sessions.began": "Depuis",
    "sessions.seen": "Dernière utilisation",
    "sessions.this": "celle-ci",
    "sessions.end": "Se déconnecter partout",
    "sessions.hint": (
        "Toutes ces sessions prennent fin, celle-ci comprise. Vos jetons et vos clés d’API restent valables."
    ),
    "ask_access": "Demander un accès",
    "ask_access.known": "Vous n’avez pas encore de compte",
    "ask_access.name": "Nom",
    "ask_access.email": "Courriel",
    "ask_access.siret": "SIRET",
    "ask_access.no_siret": "non communiqué",
    "ask_access.hint": "Ces informations viennent de votre fournisseur d’identité et sont jointes à votre demande.",
    "ask_access.organisation": "Administration et service",
    "ask_access.kind": "Accès demandé",
    "ask_access.individual": "individuel, pour expérimenter",
    "ask_access.partner": "partenaire, pour un service en convention",
    "ask_access.motive": "Usage prévu",
    "ask_access.send": "Envoyer la demande",
    "ask_access.approved": "Votre accès est accordé\u00a0: un code d’activation vous est envoyé par courriel.",
    "ask_access.waits": "Votre demande est enregistrée. La suite vous sera donnée par courriel.",
    "ask_access.refused": "Votre demande ne peut pas être acceptée\u00a0; un courriel vous dit pourquoi.",
    "demo.switch": "Démonstration\u00a0: voir en tant que",
    "demo.operator": "opérateur",
    "demo.manager": "gestionnaire",
    "demo.member": "agent",
    "refused.too_many_attempts": "Trop de tentatives. Réessayez dans un quart d’heure.",
    "refused.too_many_requests": "Trop de demandes ont été faites pour cette adresse. Réessayez demain.",
    "refused.account_suspended": "Votre compte est suspendu. Adressez-vous à un gestionnaire de votre administration.",
    "refused.tenant_suspended": "Votre administration est suspendue. Adressez-vous à l’opérateur de la plateforme.",
    "refused.sign_in_unknown": (
        "Cette connexion n’a pas été commencée sur ce navigateur, ou elle a déjà servi, ou elle a expiré. Recommencez."
    ),
    "refused.sign_in_state": "La réponse du fournisseur d’identité ne correspond pas à votre connexion. Recommencez.",
    "refused.sign_in_denied": "Vous avez renoncé à vous connecter.",
    "refused.provider_refused": "Le fournisseur d’identité a refusé la connexion. Recommencez.",
    "refused.provider_unavailable": (
        "Le fournisseur d’identité ne répond pas. Réessayez dans quelques instants, ou utilisez un jeton d’accès."
    ),
    "refused.store_unavailable": "La connexion est momentanément impossible. Réessayez dans quelques instants.",
    "refused.identity_token": (
        "L’identité reçue n’a pas pu être vérifiée\u00a0: vous n’êtes pas connecté. Recommencez, ou prévenez "
        "l’opérateur."
    ),
    "refused.identity_ambiguous": (
        "Plusieurs comptes ont votre adresse et votre SIRET n’est pas connu. Utilisez un jeton d’accès."
    ),
    "refused.identity_conflict": (
        "Le compte de cette adresse appartient à une autre identité. Adressez-vous à un gestionnaire de votre "
        "administration."
    ),
    "refused.identity_incomplete": (
        "Votre fournisseur d’identité n’a pas communiqué d’adresse vérifiée\u00a0: aucun compte ne peut être trouvé."
    ),
    "refused.no_provider": "Aucun fournisseur d’identité n’est configuré. Utilisez un jeton d’accès.",
    "refused.incomplete": "Remplissez tous les champs de la demande.",
}

ENGLISH: Words = {
    "sign_in": "Sign in",
    "sign_in.token": "With an access token",
    "sign_in.token.field": "Access token",
    "sign_in.token.hint": "It was shown when your account was activated. It begins with {prefix}.",
    "sign_out": "Sign out",
    "signed_out": "You are signed out.",
    "refused.missing_token": "Enter your access token.",
    "refused.invalid_token": "This token is unknown, revoked or expired.",
    "refused.wrong_role": "This token isn’t a person’s: it doesn’t open the pages.",
    "sign_in.provider": "With your professional account",
    "sign_in.provider.go": "Sign in with {provider}",
    "sign_in.provider.hint": (
        "Your administration is recognised by its SIRET. Without an account here, you can ask for one."
    ),
    "signed_out.title": "You are signed out",
    "signed_out.here": "Your session is over here. It is still open at your identity provider.",
    "signed_out.there": "Sign out of {provider} too",
    "signed_out_everywhere": "You are signed out on all your browsers.",
    "sessions": "My sessions",
    "sessions.own": "Browsers that you are signed in on",
    "sessions.way": "Sign-in",
    "sessions.way.oidc": "at the identity provider",
    "sessions.way.token": "with an access token",
    "sessions.way.demo": "by the demo",
    "sessions.began": "Since",
    "sessions.seen": "Last use",
    "sessions.this": "this one",
    "sessions.end": "Sign out everywhere",
    "sessions.hint": "All these sessions end, this one too. Your tokens and API keys stay valid.",
    "ask_access": "Ask for access",
    "ask_access.known": "You have no account yet",
    "ask_access.name": "Name",
    "ask_access.email": "E-mail",
    "ask_access.siret": "SIRET",
    "ask_access.no_siret": "not told",
    "ask_access.hint": "This comes from your identity provider and goes with your request.",
    "ask_access.organisation": "Administration and department",
    "ask_access.kind": "Access",
    "ask_access.individual": "individual, to experiment",
    "ask_access.partner": "partner, for a service by convention",
    "ask_access.motive": "What it is for",
    "ask_access.send": "Send the request",
    "ask_access.approved": "Your access is granted: an activation code is on its way by mail.",
    "ask_access.waits": "Your request is recorded. You will be told by mail what becomes of it.",
    "ask_access.refused": "Your request can’t be accepted; a mail says why.",
    "demo.switch": "Demo: see it as",
    "demo.operator": "operator",
    "demo.manager": "manager",
    "demo.member": "user",
    "refused.too_many_attempts": "Too many attempts. Try again in a quarter of an hour.",
    "refused.too_many_requests": "There were too many requests for this address. Try again tomorrow.",
    "refused.account_suspended": "Your account is suspended. Ask a manager of your administration.",
    "refused.tenant_suspended": "Your administration is suspended. Ask the platform’s operator.",
    "refused.sign_in_unknown": (
        "This sign-in wasn’t begun on this browser, has been used already, or is too old. Begin again."
    ),
    "refused.sign_in_state": "The identity provider’s answer isn’t the one to your sign-in. Begin again.",
    "refused.sign_in_denied": "You gave up signing in.",
    "refused.provider_refused": "The identity provider refused. Begin again.",
    "refused.provider_unavailable": "The identity provider doesn’t answer. Try again shortly, or use an access token.",
    "refused.store_unavailable": "Sign-in isn’t possible for a moment. Try again shortly.",
    "refused.identity_token": (
        "The identity that came could not be verified: you are not signed in. Begin again, or tell the operator."
    ),
    "refused.identity_ambiguous": (
        "Several accounts have your address, and your SIRET isn’t known. Use an access token."
    ),
    "refused.identity_conflict": (
        "The account of this address belongs to another identity. Ask a manager of your administration."
    ),
    "refused.identity_incomplete": "Your identity provider told no verified address: no account can be found.",
    "refused.no_provider": "No identity provider is set up. Use an access token.",
    "refused.incomplete": "Fill in every field of the request.",
}
